"""Every text of the page, in both languages; ``{names}`` are filled in by its scripts.

The messages of the API's answers are in ``api/envelope.py``.
"""

from collections.abc import Mapping
from typing import Final

from celery_concurrency.api.envelope import LANGUAGES

#: Key to (Chinese, English), in the order of ``LANGUAGES``.
TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    # The frame
    "html_language": ("zh-CN", "en"),
    "title": ("并发控制", "Concurrency"),
    "skip": ("跳到主要内容", "Skip to the content"),
    "views": ("视图", "Views"),
    "language": ("语言", "Language"),
    "needs_script": ("本页需要 JavaScript。", "This page needs JavaScript."),
    "loading": ("正在读取…", "Reading..."),
    "live": ("实时", "Live"),
    "asleep": ("已暂停刷新", "Asleep"),
    "stale": ("数据已过时", "Not up to date"),
    "read_only": ("只读", "Read only"),
    "read_again_in": ("{seconds} 秒后重试", "next try in {seconds} s"),
    "no_answer": ("服务器没有响应", "The server does not answer"),
    "no_envelope": (
        "服务器的响应无法识别（状态码 {status}）",
        "The server's answer is not understood (status {status})",
    ),
    "config_problem": (
        "手工写入的配置无效，未生效，仍使用上一份有效配置：{problem}",
        "The configuration written by hand is not valid. The last valid one stays in force: "
        "{problem}",
    ),
    "switched_off": (
        "并发控制已关闭：所有任务都放行，只计数。",
        "Limits are switched off: every task is admitted and counted.",
    ),
    # Signing in
    "sign_in": ("登录", "Sign in"),
    "sign_in_why": (
        "此服务需要访问令牌（bearer token）。令牌只保存在本标签页中，关闭即消失。",
        "This server asks for a bearer token. It is kept in this tab only, and forgotten when "
        "you close it.",
    ),
    "wrong_token": ("此令牌无效。", "This token is not accepted."),
    "access_token": ("访问令牌", "Bearer token"),
    "sign_out": ("退出", "Sign out"),
    # Limits
    "limits": ("限制", "Limits"),
    "limit": ("限制", "Limit"),
    "global": ("全局", "Global"),
    "platform": ("平台", "Platform"),
    "task_type": ("任务类型", "Task type"),
    "account": ("账号", "Account"),
    "filter": ("筛选", "Filter"),
    "no_limits": ("没有名称匹配的限制。", "No limit has this in its name."),
    "more_limits": (
        "还有 {count} 项，请用名称筛选。",
        "{count} more: filter by name to see them.",
    ),
    "unlisted_limits": (
        "另有 {count} 个已配置或使用中的限制未列出。",
        "{count} more limits are configured or in use; they are not listed.",
    ),
    "unread_tokens": (
        "另有 {count} 个令牌未读取；只由它们占用的限制未列出。",
        "{count} more tokens are held. Limits that only these tokens occupy are not listed.",
    ),
    "uncounted_groups": (
        "另有 {count} 组等待中的任务未计入。",
        "{count} more groups of waiting tasks are not counted.",
    ),
    "statistics_full": (
        "按名称统计的限制已达上限："
        "其余未配置的平台和任务类型合并计入 other/platform 和 other/task_type。",
        "The statistics are full: other platforms and task types that are not configured are "
        "counted together, as other/platform and other/task_type.",
    ),
    "misnamed_header": (
        "任务 {task} 的消息带有消息头 {header}（{count} 次），它不对应任何限制；是否想写 {tag}？",
        "Messages of task {task} have the header {header} ({count} times), which limits nothing: "
        "did you mean {tag}?",
    ),
    "used": ("运行中 / 上限", "Running / limit"),
    "used_of": ("{current} / {max}", "{current} of {max}"),
    "used_unlimited": ("{current}，不限", "{current}, no limit"),
    "full": ("已满", "full"),
    "too_full": ("名额不够", "too few places"),
    "over": ("超出上限", "over the limit"),
    "paused": ("已暂停", "paused"),
    "kept": ("已预留", "kept"),
    "room": ("有名额", "has room"),
    "actions": ("操作", "Actions"),
    "edit": ("修改", "Edit"),
    "pause": ("暂停", "Pause"),
    "resume": ("恢复", "Resume"),
    "set_another": ("设置其他限制", "Set another limit"),
    "cancel_all": ("取消等待任务", "Cancel waiting"),
    # Moments
    "rate": ("每 {period} {max} 个", "{max} per {period}"),
    "comma": ("，", ", "),
    "colon": ("：", ": "),
    "window": ("{used} / {max}（任意 {period}）", "{used} of {max} in {period}"),
    "opens_in": ("{left}后放行", "opens in {left}"),
    "backlog_text": (
        "近 1 小时的等待数：最多 {most}，现在 {now}",
        "Waiting in the last hour: {most} at most, {now} now",
    ),
    "oldest_wait": ("最久已等 {duration}", "up to {duration}"),
    "shut": ("暂不放行", "not open yet"),
    "cooling": ("冷却中", "cools down"),
    "paused_by": ("由 {name} 于 {since} 暂停", "since {since}, by {name}"),
    "set_by": ("由 {name} 设置", "set by {name}"),
    "cool_down": ("冷却", "Cool down"),
    "extend": ("延长冷却", "Extend"),
    "lift": ("解除冷却", "Lift"),
    "cool_another": ("冷却其他限制", "Cool another limit down"),
    # Observed
    "observed": ("仅观察", "Only observed"),
    "observed_value": ("{value}（仅观察）", "{value} (only observed)"),
    "observed_badge": ("若生效：{max}", "would allow {max}"),
    "observed_why": (
        "这些限制不拦任何任务，只统计：如果已经生效，会拦下多少、各等多久。",
        "These limits turn no task away. They count how many they would have turned away, and "
        "for how long.",
    ),
    "would_allow": ("若生效", "Would allow"),
    "looked_at": ("已观察的次数", "Runs seen"),
    "would_turn_away": ("会拦下", "Would have turned away"),
    "would_deny": (
        "{count} 次（{share}%），平均等待 {mean}，最长 {longest}",
        "{count} ({share}%), for {mean} on average, {longest} at most",
    ),
    "would_deny_none": ("没有", "none"),
    "put_in_force": ("正式生效", "Put in force"),
    "unlisted_observed": (
        "另有 {count} 项仅观察的限制未列出。",
        "{count} more are only observed; they are not listed.",
    ),
    "one_first": ("随后先放行一个任务试探", "then one run goes first"),
    "tried": ("试探中", "after a refusal"),
    "tried_by": ("正在试探的任务：", "one run goes first: task"),
    # Adaptive limits
    "adaptive_range": ("自适应 {min}–{max}", "adaptive {min}-{max}"),
    "adaptive_observed": (
        "自适应 {min}–{max}，观察中：{current}",
        "adaptive {min}-{max}, observed: {current}",
    ),
    "adaptive_title": ("自适应上限", "Adaptive limit"),
    "adaptive_of": ("自适应上限：{limit}", "Adaptive limit: {limit}"),
    "back_to_limits": ("返回限制列表", "Back to all limits"),
    "adaptive_stands": (
        "当前上限 {current}，在 {min} 到 {max} 之间自动调整。",
        "It is at {current} now, and moves between {min} and {max} by itself.",
    ),
    "adaptive_stands_observed": (
        "仅观察，不限制任何任务：生效时上限会是 {current}，在 {min} 到 {max} 之间。",
        "Only observed: it turns no task away. In force it would be at {current}, between "
        "{min} and {max}.",
    ),
    "adaptive_paused": (
        "此限制已暂停，不放行任何任务。",
        "The limit is paused and admits no task.",
    ),
    "adaptive_capped": (
        "配置的上限 {max} 更低，以它为准。",
        "The configured maximum is lower, so {max} is in force.",
    ),
    "adaptive_since": ("上次变动：{since}。", "It last moved at {since}."),
    "adaptive_rule": (
        "平台拒绝时乘以 {decrease}，每 {every} 秒最多一次；满载且 {every} 秒内无拒绝，则加 1。",
        "A refusal multiplies it by {decrease}, at most once every {every} s. After {every} s "
        "without a refusal it grows by 1, if it was used in full.",
    ),
    "adaptive_plot": (
        "最近 24 小时的上限、运行数与拒绝",
        "Limit, running and refusals of the last 24 hours",
    ),
    "adaptive_in_force": ("上限", "limit"),
    "adaptive_running": ("运行中", "running"),
    "refusals": ("平台拒绝（每 5 分钟）", "refusals in 5 minutes"),
    "adaptive_falls": ("下降", "falls"),
    "adaptive_moves": ("24 小时内的变动", "Moves in the last 24 hours"),
    "adaptive_change": ("上限", "Limit"),
    "adaptive_why": ("原因", "Why"),
    "adaptive_refused": ("被平台拒绝", "refused"),
    "adaptive_refused_as": ("被平台拒绝：{reason}", "refused: {reason}"),
    "adaptive_used_in_full": ("满载运行", "used in full"),
    "adaptive_was_reset": ("已恢复到最大值", "reset"),
    "adaptive_was_reset_by": ("由 {name} 恢复到最大值", "reset by {name}"),
    "adaptive_none": ("最近 24 小时没有变动。", "It did not move in the last 24 hours."),
    "adaptive_more": ("再显示 {count} 次更早的变动", "Show {count} earlier ones"),
    "adaptive_reset": ("恢复到最大值", "Back to its maximum"),
    "adaptive_reset_title": ("恢复 {limit}", "Reset {limit}"),
    "adaptive_reset_effect": (
        "{limit} 立即回到 {max}，等待中的任务随即补上。平台若再次拒绝，它会再次下降。",
        "{limit} goes back to {max} at once, and waiting tasks go on. If the platform refuses "
        "again, it falls again.",
    ),
    # Running
    "running": ("运行中", "Running"),
    "running_of": ("运行中：{limit}", "Running: {limit}"),
    "running_none": ("没有任务持有令牌。", "No task holds a token."),
    "task": ("任务", "Task"),
    "worker": ("Worker", "Worker"),
    "token": ("令牌", "Token"),
    "since": ("开始于", "Since"),
    "expires": ("到期", "Expires"),
    "expires_in": ("{duration}后", "in {duration}"),
    "expired": ("已到期", "expired"),
    "for_duration": ("已持续 {duration}", "for {duration}"),
    "reserved": ("已预留，尚未开始", "reserved, not started"),
    "reserved_for": ("已预留给任务", "reserved for task"),
    "kept_for": ("名额预留给任务", "room kept for task"),
    "places": ("占 {count} 个名额", "{count} places"),
    "passed_over": ("等待过久，正在为它凑齐名额", "passed over for long, so room is kept for it"),
    "release": ("释放", "Release"),
    "unknown": ("未知", "unknown"),
    "waits_since": ("等待自", "Waiting since"),
    "waits_for_duration": ("已等 {duration}", "for {duration}"),
    "total": ("共 {count} 个", "{count} in all"),
    "show_all": ("显示全部", "Show all"),
    "first_page": ("回到首页", "First page"),
    "next_page": ("下一页", "Next page"),
    # Waiting
    "waiting": ("等待中", "Waiting"),
    "waiting_of": ("等待中：{limit}", "Waiting: {limit}"),
    "waiting_none": (
        "等待室里没有任务。（以重试方式等待的任务在 broker 中，这里不列出。）",
        "No task is in the waiting room. (Tasks that wait by retrying are in the broker, and "
        "not listed here.)",
    ),
    "position": ("次序", "Position"),
    "position_note": (
        "次序只在限制完全相同的任务之间排列。",
        "The position is among tasks with exactly the same limits.",
    ),
    "waits_for": ("等待原因", "Waits for"),
    "why": ("为什么？", "Why?"),
    "cancel_task": ("取消任务", "Cancel the task"),
    "task_id": ("任务 ID", "Task id"),
    "ask_why": ("它为什么等待？", "Why does it wait?"),
    "why_full": ("{limit} 已满（{current} / {max}）", "{limit} is full ({current} of {max})"),
    "why_paused": ("{limit} 已暂停", "{limit} is paused"),
    "why_rate": ("{limit} {left}后放行（{rate}）", "{limit} opens in {left} ({rate})"),
    "why_cooling": (
        "{limit} {left}后放行（冷却中）",
        "{limit} opens in {left} (it cools down)",
    ),
    "why_cooling_as": (
        "{limit} {left}后放行（冷却中：{cause}）",
        "{limit} opens in {left} (it cools down: {cause})",
    ),
    "why_probe": (
        "{limit} 曾被平台拒绝，先放行一个任务试探",
        "{limit}: one run goes first after a refusal",
    ),
    "why_kept": (
        "{limit} 的名额预留给等待更久的任务",
        "the room in {limit} is kept for a task that waited longer",
    ),
    "why_takes": ("，它需要 {takes} 个名额", ", it takes {takes} places"),
    "why_still": (
        "（已有 {duration} 没有任务开始）",
        ", and none has begun there for {duration}",
    ),
    "why_said_by": ("（由 {name} 于 {since} 设置）", " since {since}, by {name}"),
    "why_more": ("；", "; "),
    "why_somebody": ("未署名", "somebody"),
    "why_behind": (
        "限制都有名额，前面还有限制相同的任务",
        "its limits have room; others with the same limits came before",
    ),
    "why_next": ("限制都有名额，下一个就是它", "its limits have room, and it is next"),
    # Why?
    "why_title": ("为什么等待？", "Why does it wait?"),
    "back_to_waiting": ("返回等待列表", "Back to all waiting tasks"),
    "why_answer": ("它在等待：{reason}。", "It waits: {reason}."),
    "why_place": (
        "自 {since} 起等待，已等 {duration}，次序 {position}。",
        "Since {since} ({duration}), at position {position}.",
    ),
    "why_given_up_at": ("最多等到 {at}。", "It is given up at {at}."),
    "why_runs": ("它正在运行：", "It runs:"),
    "why_handed_over": (
        "名额已移交给它，消息已回到队列，Worker 一取到就开始。",
        "It was handed room and is back in its queue: it starts as soon as a worker takes it.",
    ),
    "why_reserved_until": ("名额为它保留到 {until}。", "The room stays reserved until {until}."),
    "its_limits": ("相关限制及当前占用者", "Its limits, and who holds them"),
    "state": ("状态", "State"),
    "held_by": ("占用者", "Held by"),
    # Workers
    "workers": ("Worker", "Workers"),
    "workers_none": (
        "没有在线的 Worker，也没有人持有令牌。",
        "No worker is alive, and nobody holds a token.",
    ),
    "waiting_mode": ("等待方式", "Mode"),
    "mode_handoff": ("移交", "handoff"),
    "mode_retry": ("重试", "retry"),
    "up_since": ("启动于", "Up since"),
    "tokens": ("令牌", "Tokens"),
    "tokens_of": ("{worker} 持有的令牌：{count}", "Tokens of {worker}: {count}"),
    "alive": ("在线", "alive"),
    "silent": ("失联 {duration}", "silent for {duration}"),
    "program": ("程序", "program"),
    "last_heard": ("最后心跳 {time}", "last heard of at {time}"),
    "taken_back_after": (
        "失联 {seconds} 秒后收回令牌",
        "its tokens are taken back after {seconds} s",
    ),
    "program_why": ("在任务之外持有令牌", "holds tokens outside of tasks"),
    "worker_why": (
        "没有心跳信息：可能是旧版本",
        "says nothing of itself: an earlier version?",
    ),
    "and_more": ("另有 {count} 个", "and {count} more"),
    "mixed_modes": (
        "各个 Worker 的任务等待方式不同：{each}。",
        "Tasks wait in different ways: {each}.",
    ),
    "mixed_versions": (
        "各个 Worker 的版本不同：{each}。",
        "Workers have different versions: {each}.",
    ),
    "how_many": ("{name}（{count} 个）", "{name} ({count})"),
    "more_workers": ("另有 {count} 个 Worker 未列出。", "{count} more workers are not listed."),
    "unread_holders": (
        "另有 {count} 个令牌未读取，未计入占用者。",
        "{count} more tokens are held. Whose they are was not looked at.",
    ),
    # Statistics
    "statistics": ("统计", "Statistics"),
    "statistics_limit": ("按限制", "Of the limit"),
    "statistics_none": (
        "还没有历史数据：由运行中的 Worker 每分钟记录一次。",
        "There is no history yet: running workers write it once a minute.",
    ),
    "statistics_none_of": (
        "这段时间内没有 {limit} 的记录。",
        "Nothing is recorded of {limit} in this time.",
    ),
    "window_of": ("时段", "Window"),
    "window_1h": ("1 小时", "1 hour"),
    "window_6h": ("6 小时", "6 hours"),
    "window_24h": ("24 小时", "24 hours"),
    "zoom_how": (
        "在图上拖动可放大，双击还原。",
        "Drag across a plot to zoom in; double-click to go back.",
    ),
    "zoom_out": ("显示整个时段", "Show all of it"),
    "statistics_left_out": (
        "仅显示最繁忙的限制，另有 {count} 个未显示。",
        "These are the busiest limits; {count} more are not shown.",
    ),
    "counts_title": (
        "放行与排队（每 {period}）",
        "Acquired and waited, per {period}",
    ),
    "wait_title": ("等待时间（秒）", "Wait time, in seconds"),
    "hold_title": ("持有时间（秒）", "Hold time, in seconds"),
    "acquired": ("放行", "acquired"),
    "released": ("释放", "released"),
    "handed_over": ("移交", "handed over"),
    "lapsed": ("预留过期", "lapsed"),
    "cancelled": ("取消", "cancelled"),
    "skipped": ("跳过", "skipped"),
    "replaced": ("被新任务取代", "replaced by newer ones"),
    "crowded": ("排队已满", "refused, as too many waited"),
    "overdue": ("等待超时", "waited too long"),
    "reclaimed": ("收回", "reclaimed"),
    "lost": ("令牌丢失", "lost"),
    "denied": ("没有名额", "denied"),
    "refused": ("平台拒绝", "refused by platforms"),
    "parked": ("排队", "parked"),
    "time": ("时间", "Time"),
    "plot_label": (
        "{title}，最近值：{values}",
        "{title}. The latest: {values}",
    ),
    "as_table": ("以表格显示", "As a table"),
    "totals": ("{window}总计", "Totals of {window}"),
    # Configuration
    "configuration": ("配置", "Configuration"),
    "config_version": ("版本 {version}", "Version {version}"),
    "setting": ("设置项", "Setting"),
    "value": ("值", "Value"),
    "on": ("开", "on"),
    "off": ("关", "off"),
    "no_limit": ("不限", "no limit"),
    "any_other": ("未单独列出的名称", "each that is not listed"),
    "each_of_them": ("没有单独速率的每个名称", "each that has no rates of its own"),
    "seconds": ("{count} 秒", "{count} s"),
    "remove": ("移除", "Remove"),
    "set_rates": ("设置速率", "Set rates"),
    "set_adaptive": ("设置自适应上限", "Set adaptive limit"),
    "adaptive_value": (
        "{min} 到 {max}；被拒时乘以 {decrease}，每 {every}最多一次",
        "{min} to {max}; times {decrease} on a refusal, at most once every {every}",
    ),
    "adaptive_value_observed": ("{text}（仅观察）", "{text} (observed)"),
    "adaptive_each": (
        "没有单独自适应设置的每个名称",
        "each that has no range of its own",
    ),
    "set_bounds": ("设置排队上限", "Set bounds on waiting"),
    "bounds_most": ("最多 {count} 个任务排队", "{count} may wait"),
    "bounds_seconds": ("最多等 {period}", "for {period} at most"),
    "bounds_each": (
        "没有单独排队上限的每个名称",
        "each that has no bounds on waiting of its own",
    ),
    "set_shares": ("设置公平份额", "Set fair shares"),
    "share_of": ("{name} 权重 {weight}", "{name} with weight {weight}"),
    "share_others": ("其余权重均为 1", "all others with 1"),
    "share_equal": ("每个名称份额相同", "every name has the same share"),
    "waits_weight": ("{waits}（权重 {weight}）", "{waits} (weight {weight})"),
    "shares_name": ("名称（留空则不改权重）", "Name (leave empty to set no weight)"),
    "shares_weight": ("权重", "Weight"),
    "shares_effect": (
        "多个{dimension}等待同一限制时，轮流获得名额，不论谁先来、谁的任务多。",
        "Where several names of {dimension} wait for one limit, they go on in turn, whoever asked "
        "first or most.",
    ),
    "shares_weight_effect": (
        "{name} 每轮可得 {weight} 个名额。",
        "{name} goes on {weight} times in a round.",
    ),
    "remove_shares_effect": (
        "之后仍按先来后到。权重保留在自定义维度中。",
        "Then who waited longest goes on first. Your own dimensions keep their weights.",
    ),
    "switch_on": ("开启", "Switch on"),
    "switch_off": ("关闭", "Switch off"),
    "reset": ("恢复默认", "Reset to the defaults"),
    "history": ("修改历史", "History"),
    "version": ("版本", "Version"),
    "when": ("时间", "When"),
    "who": ("操作人", "Who"),
    "what": ("修改内容", "What changed"),
    "who_unknown": ("未知（{way}）", "unknown, {way}"),
    "way_api": ("通过 HTTP", "over HTTP"),
    "way_cli": ("命令行", "on the command line"),
    "way_library": ("程序调用", "from a program"),
    "way_reset": ("恢复默认", "by a reset"),
    "way_rollback": ("回滚", "by a rollback"),
    "actions_title": ("释放与取消的记录", "Tokens released, tasks cancelled"),
    "what_done": ("操作内容", "What was done"),
    "action_released": ("释放令牌 {subject}", "released token {subject}"),
    "action_cancelled": (
        "取消等待任务：{subject}（{count} 个）",
        "cancelled what waited: {subject} ({count})",
    ),
    "in_force": ("生效中", "in force"),
    "nothing_changed": ("无变化", "nothing"),
    "not_known": ("保留的最早版本", "the first that is kept"),
    "more_changes": ("另有 {count} 处", "and {count} more"),
    "not_valid": ("无效，未生效：{problem}", "not valid, and not in force: {problem}"),
    "no_history": ("还没有修改。", "Nothing has been changed yet."),
    "roll_back": ("回滚", "Roll back"),
    "not_set": ("未设置", "not set"),
    "apply": ("确认修改", "Change it"),
    # Confirmations
    "close": ("关闭", "Close"),
    "keep": ("不做修改", "Change nothing"),
    "your_name": ("你的名字（记入历史，可不填）", "Your name, for the history (optional)"),
    "changed_meanwhile": (
        "期间有人改过配置。页面已重新读取，请查看后再试。",
        "Somebody changed it meanwhile. The page has read it again: look, and try again.",
    ),
    "edit_title": ("修改 {limit}", "Edit {limit}"),
    "new_limit": ("新上限（0 为不限）", "New limit (0 is no limit)"),
    "mode": ("方式", "Mode"),
    "mode_enforce": ("生效", "in force"),
    "mode_observe": ("仅观察：不拦任何任务，只统计", "only observe: turn no task away, and count"),
    "observe_effect": (
        "{limit}：不拦任何任务；从现在起统计上限 {max} 会拦下多少、各等多久。",
        "{limit} turns no task away. From now on it counts those that a limit of {max} would "
        "have, and for how long.",
    ),
    "enforce_title": ("让 {limit} 正式生效", "Put {limit} in force"),
    "enforce_effect": (
        "{limit}（{value}）立即对所有 Worker 生效；正在运行的不受影响。到目前为止会拦下：",
        "{limit} ({value}) is in force at once, for all workers. Running tasks are not "
        "affected. So far it would have turned away:",
    ),
    "new_timeout": ("超时秒数", "Timeout in seconds"),
    "edit_effect": (
        "{limit}：从 {before} 改为 {after}，对所有 Worker 立即生效。",
        "{limit} goes from {before} to {after} at once, for all workers.",
    ),
    "edit_lower": (
        "正在运行的 {current} 个不受影响；降到 {after} 个以下之前不再放行。",
        "The {current} running tasks are not affected. No task is admitted until fewer than "
        "{after} run.",
    ),
    "edit_raise": (
        "等待中的任务会立即补上。",
        "Waiting tasks go on at once, as far as there is room.",
    ),
    "number_bounds": (
        "请输入 {least} 到 {most} 之间的整数",
        "Enter a whole number from {least} to {most}",
    ),
    "edit_same": ("值没有变化。", "That is the current value."),
    "timeout_effect": (
        "Worker 失联 {after} 秒后，其令牌自动收回；运行中任务的令牌会一直续期。",
        "A token whose holder is silent for {after} s is taken back. Those of running tasks "
        "are renewed.",
    ),
    "another_title": ("设置其他限制", "Set another limit"),
    "dimension": ("维度", "Dimension"),
    "name": ("名称（* 为未列出的名称）", "Name (* is any that is not listed)"),
    "pause_title": ("暂停 {limit}", "Pause {limit}"),
    "pause_effect": (
        "从现在起 {limit} 不再放行任何任务。正在运行的会继续到结束，其余等待，直到恢复。",
        "From now on {limit} admits no task. Running tasks go on to their end; the others wait "
        "until it is resumed.",
    ),
    "resume_title": ("恢复 {limit}", "Resume {limit}"),
    "resume_effect": (
        "{limit} 重新放行，等待中的任务按次序立即继续。",
        "{limit} admits tasks again. Waiting tasks go on at once, in their order.",
    ),
    "one_name": ("名称", "Name"),
    "how_long": ("冷却多久", "For how long"),
    "unit": ("单位", "Unit"),
    "unit_s": ("秒", "seconds"),
    "unit_m": ("分钟", "minutes"),
    "unit_h": ("小时", "hours"),
    "unit_d": ("天", "days"),
    "cool_reason": ("原因（会显示给大家，可不填）", "Reason, which others see (optional)"),
    "cool_title": ("冷却 {limit}", "Cool {limit} down"),
    "extend_title": ("延长 {limit} 的冷却", "Extend the cool-down of {limit}"),
    "cool_effect": (
        "{limit} 在 {until} "
        "之前（{duration}）不再放行任何任务，到时自动恢复。正在运行的会继续到结束，其余等待。",
        "{limit} admits no task until {until} ({duration}), and then opens by itself. Running "
        "tasks go on to their end; the others wait.",
    ),
    "cool_longer": (
        "{limit} 已经冷却到 {until}；两者取更晚的，所以不会有变化。要缩短，请先解除。",
        "{limit} already cools down until {until}, and the longer of two stands: nothing would "
        "change. To make it shorter, lift it first.",
    ),
    "lift_title": ("解除 {limit} 的冷却", "Lift the cool-down of {limit}"),
    "lift_effect": (
        "{limit} 立即重新放行，等待中的任务按次序继续。",
        "{limit} admits tasks again at once. Waiting tasks go on, in their order.",
    ),
    "rates_title": ("修改 {limit} 的速率", "Edit the rates of {limit}"),
    "rates_label": (
        "速率：最多个数/多长时间，例如 1/30s, 15/1d（s 秒，m 分钟，h 小时，d 天）；"
        "仅观察的写成 1/30s:observe",
        "Rates: how many / in how long, such as 1/30s, 15/1d (s, m, h or d); 1/30s:observe only "
        "counts",
    ),
    "rate_unclear": (
        "无法识别“{text}”：请写成 1/30s 或 15/1d 的形式",
        '"{text}" is not a rate: write it as 1/30s or 15/1d',
    ),
    "rate_max_bounds": (
        "“{text}”：个数须在 1 到 {most} 之间",
        '"{text}": the number must be from 1 to {most}',
    ),
    "rate_per_bounds": (
        "“{text}”：时间须在 1 秒到 {most}之间",
        '"{text}": the time must be from 1 s to {most}',
    ),
    "rates_too_many": ("最多 {most} 个速率", "{most} rates at most"),
    "rate_effect": (
        "{limit}：任意 {period}内最多开始 {max} 个任务。",
        "{limit}: in any {period}, at most {max} tasks may start.",
    ),
    "rate_observed_effect": (
        "{limit}：不拦任何任务，只统计：若任意 {period}内最多 {max} 个，会拦下多少。",
        "{limit} turns no task away, and counts those that {max} in any {period} would have.",
    ),
    "rates_replace": (
        "它们取代 {wildcard} 的速率（{rates}）。",
        "They replace those of {wildcard} ({rates}).",
    ),
    "rates_effect": (
        "立即生效；最近已经开始的任务也计算在内。",
        "In force at once; runs that began lately count.",
    ),
    "remove_rates_effect": (
        "移除后，{limit} 不再有自己的速率，立即生效；名称仍受同类通配（*）速率的限制（如有）。",
        "{limit} then has no rates of its own, at once. A name keeps those of its kind's *, if "
        "there are any.",
    ),
    "adaptive_edit_title": ("修改 {limit} 的自适应上限", "Edit the adaptive limit of {limit}"),
    "adaptive_min": ("最小值", "Minimum"),
    "adaptive_max": ("最大值", "Maximum"),
    "adaptive_every": ("两次变动至少相隔（秒）", "Seconds between two moves"),
    "adaptive_decrease": (
        "被拒时乘以（大于 0，小于 1）",
        "A refusal multiplies it by (more than 0, less than 1)",
    ),
    "adaptive_min_over_max": ("不能大于最大值", "It can't be more than the maximum"),
    "decrease_bounds": ("须大于 0 且小于 1", "It must be more than 0 and less than 1"),
    "adaptive_effect": (
        "{limit} 从 {max} 开始，在 {min} 到 {max} 之间自动调整，立即生效。",
        "{limit} begins at {max} and moves between {min} and {max} by itself, at once.",
    ),
    "adaptive_edit_effect": (
        "{limit} 在 {min} 到 {max} 之间自动调整，立即生效。"
        "若已下降，从当前值继续；否则从 {max} 开始。",
        "{limit} moves between {min} and {max} by itself, at once. If it has fallen, it goes on "
        "from where it stands; otherwise it begins at {max}.",
    ),
    "adaptive_observe_effect": (
        "{limit}：不拦任何任务；从现在起统计 {min} 到 {max} 之间的自适应上限会拦下多少、各等多久。",
        "{limit} turns no task away. From now on it counts those that a limit between {min} and "
        "{max} would have, and for how long.",
    ),
    "adaptive_enforce_effect": (
        "{limit}（{min} 到 {max}）立即对所有 Worker 生效，从当前值继续；正在运行的不受影响。",
        "{limit} ({min} to {max}) is in force at once, for all workers, and goes on from where it "
        "stands. Running tasks are not affected.",
    ),
    "adaptive_between": ("{min} 到 {max}（自适应）", "{min} to {max} (adaptive)"),
    "adaptive_configured": (
        "配置的上限（{max}）更低时，以它为准。",
        "The configured maximum ({max}) stays, and wins where it is lower.",
    ),
    "remove_adaptive_effect": (
        "移除后，{limit} 不再有自己的自适应设置，立即生效；配置的上限不变。"
        "名称仍受同类通配（*）设置的约束（如有）。",
        "{limit} then has no range of its own, at once, and its configured maximum stays. A "
        "name keeps the range of its kind's *, if there is one.",
    ),
    "bounds_edit_title": ("修改 {limit} 的排队上限", "Edit the bounds on waiting for {limit}"),
    "bounds_most_label": (
        "最多多少个任务排队（留空为不限）",
        "How many may wait (empty: any number)",
    ),
    "bounds_seconds_label": (
        "最多等多少秒（留空为不限）",
        "For how many seconds (empty: for ever)",
    ),
    "bounds_effect": (
        "{limit}：{bounds}。超出的任务立即失败，等待超时的任务也会失败，并按失败通知后续任务。",
        "{limit}: {bounds}. One too many fails at once, who waits for longer fails too, and their "
        "canvas is told.",
    ),
    "bounds_since": (
        "已在排队的任务也计算在内。",
        "Tasks that wait already count as well.",
    ),
    "remove_bounds_effect": (
        "移除后，{limit} 不再有自己的排队上限，立即生效；名称仍受同类通配（*）上限的约束（如有）。",
        "{limit} then has no bounds on waiting of its own, at once. A name keeps those of its "
        "kind's *, if there are any.",
    ),
    "release_title": ("释放令牌", "Release a token"),
    "release_effect": (
        "任务 {task} 不会停止，但不再计数：同一限制内可能多运行一个任务。",
        "Task {task} is not stopped. It goes on without being counted, so another task may "
        "begin beside it.",
    ),
    "release_limits": ("释放的限制：{limits}", "Room comes free in: {limits}"),
    "cancel_title": ("取消等待中的任务", "Cancel a waiting task"),
    "cancel_effect": (
        "任务 {task} 不会再运行：Worker 会把它作为已撤销（REVOKED）丢弃。此操作无法撤回。",
        "Task {task} will not run: a worker discards it as revoked. This can't be undone.",
    ),
    "cancel_all_title": ("取消 {limit} 的所有等待任务", "Cancel all tasks that wait for {limit}"),
    "cancel_all_effect": (
        "计入 {limit} 的所有等待任务（现有 {count} 个）都不会再运行，"
        "会作为已撤销（REVOKED）丢弃。此操作无法撤回。",
        "All waiting tasks that count in {limit}, {count} as of now, will not run: they are "
        "discarded as revoked. This can't be undone.",
    ),
    # What was changed, from what to what
    "unchanged": ("{value}（没有变化）", "{value} (no change)"),
    "open": ("放行", "open"),
    "cooling_until": ("冷却到 {until}", "cools down until {until}"),
    "token_of": ("{task} 的令牌", "Token of {task}"),
    "token_held": ("占用中", "held"),
    "token_released": ("已释放（{limits}）", "released ({limits})"),
    "task_waited": ("等待中", "waiting"),
    "task_cancelled": ("已取消", "cancelled"),
    "count_waited": ("{count} 个等待中", "{count} waiting"),
    "count_cancelled": ("已取消 {count} 个", "{count} cancelled"),
    "remove_title": ("移除 {field}", "Remove {field}"),
    "remove_effect": (
        "移除后，这个名称改用同类的一般上限，立即生效。",
        "The name then has the limit of its kind, at once.",
    ),
    "off_title": ("关闭并发控制", "Switch limits off"),
    "off_effect": (
        "所有任务都放行，包括正在等待的；仍然计数。",
        "Every task is admitted, waiting ones included. Runs are still counted.",
    ),
    "on_title": ("开启并发控制", "Switch limits on"),
    "on_effect": (
        "限制立即重新生效；正在运行的任务不受影响。",
        "The limits are in force again at once. Running tasks are not affected.",
    ),
    "reset_title": ("恢复默认配置", "Reset to the defaults"),
    "reset_effect": (
        "所有限制回到默认值，立即生效，暂停也一并取消。现在的配置留在历史中，可以回滚。将修改：",
        "All limits go back to the defaults at once, and nothing stays paused. The present "
        "configuration stays in the history, and you can roll back to it. It changes:",
    ),
    "reset_same": (
        "现在就是默认配置：不会有任何变化。",
        "The defaults are in force already: nothing would change.",
    ),
    "rollback_title": ("回滚到版本 {version}", "Roll back to version {version}"),
    "rollback_same": (
        "版本 {version} 与当前配置相同：不会有任何变化。",
        "Version {version} is the same as what is in force: nothing would change.",
    ),
    "rollback_effect": (
        "版本 {version} 的配置作为新版本立即生效。将修改：",
        "The configuration of version {version} is in force again at once, as a new version. "
        "It changes:",
    ),
}  # fmt: skip


def texts_in(language: str) -> dict[str, str]:
    """Return the texts in one of ``LANGUAGES``."""
    column = LANGUAGES.index(language)
    return {key: both[column] for key, both in TEXTS.items()}
