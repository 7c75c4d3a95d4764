"""Projects that the tests' workers run, each as a user would write it.

A project reads BROKER_URL and RESULT_BACKEND from its environment when it is
imported; the fixtures ``project`` and ``worker`` see to it that the test and
its workers share them.
"""
