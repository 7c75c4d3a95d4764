"""What the limiter's tests share: patience."""

from tests.support.patience import patient_clients, whole_calls

__all__ = ["patient_clients", "whole_calls"]
