"""Triton programs over rows of float32 logits; one program reads one row, a block at a time.

Every sum is kept lane by lane in float32, rescaled as the lane's maximum rises, and joined over the
lanes in float64. Differences of logits are taken before any normaliser: a constant apart from the
vocabulary cancels in KL and in its gradient. Stores go over what the same program has read.
"""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN202, PLR0915, PLR0917

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.4028234663852886e38)  # minus infinity would leave no number in z - max


@triton.jit
def _exp(x):
    """Exp x of x <= 0 to two units in the last place; the hardware's is so near 0 alone."""
    x = tl.where(x < -150.0, -150.0, x)  # where NaN stays
    k = tl.floor(x * 1.4426950408889634 + 0.5)
    rest = (x - k * 0.693359375) + k * 2.1219444005469057e-4
    return tl.exp2(rest * 1.4426950408889634) * tl.exp2(k)


@triton.jit
def _read(row, at, width):
    return tl.load(row + at, mask=at < width, other=-float("inf"))


@triton.jit
def _less(a, b, at, width):
    """Of two blocks of logits, 0 beyond the vocabulary."""
    return tl.where(at < width, a - b, 0.0)


@triton.jit
def _empty(BLOCK: tl.constexpr):
    return tl.full([BLOCK], LOWEST, tl.float32), tl.zeros([BLOCK], tl.float32)


@triton.jit
def _step(top, z):
    """The lanes' new maxima, and what old sums and the new term are to be multiplied by."""
    rise = z - top
    small = _exp(-tl.abs(rise))
    up = rise > 0
    return tl.where(up, z, top), tl.where(up, small, 1.0), tl.where(up, 1.0, small)


@triton.jit
def _highest(top):
    """The row's maximum, and every lane's share of it."""
    most = tl.max(top, 0)
    return most, _exp(top - most).to(tl.float64)


@triton.jit
def _joined(lanes, share):
    return tl.sum(lanes.to(tl.float64) * share, 0)


@triton.jit
def log_prob(
    z_row, labels, rows, g_row, z_step, g_step, width, LEARNS: tl.constexpr, BLOCK: tl.constexpr
):
    """Log p(label); d row / d logits is [v = label] - p."""
    n = tl.program_id(0).to(tl.int64)
    z_row, g_row, lane = z_row + n * z_step, g_row + n * g_step, tl.arange(0, BLOCK)
    label = tl.load(labels + n)
    # Before anything is stored; of a label that there is not, no number.
    inside = (label >= 0) & (label < width)
    own = tl.load(z_row + label, mask=inside, other=float("nan")).to(tl.float64)
    top, total = _empty(BLOCK)
    for start in range(0, width, BLOCK):
        top, old, new = _step(top, _read(z_row, start + lane, width))
        total = total * old + new
    most, share = _highest(top)
    whole = _joined(total, share)
    tl.store(rows + n, (own - most - tl.log(whole)).to(tl.float32))
    if LEARNS:
        scale = (1.0 / whole).to(tl.float32)
        for start in range(0, width, BLOCK):
            at = start + lane
            p = _exp(_read(z_row, at, width) - most) * scale
            tl.store(g_row + at, tl.where(at == label, 1.0 - p, -p), mask=at < width)


@triton.jit
def kl(
    p_row,
    q_row,
    rows,
    of_row,
    to_row,
    p_step,
    q_step,
    of_step,
    to_step,
    width,
    OF: tl.constexpr,
    TO: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """KL(p || q); its gradients are p (log p/q - KL) and q - p."""
    n = tl.program_id(0).to(tl.int64)
    p_row, q_row, lane = p_row + n * p_step, q_row + n * q_step, tl.arange(0, BLOCK)
    of_row, to_row = of_row + n * of_step, to_row + n * to_step
    p_top, p_sum = _empty(BLOCK)
    q_top, q_sum = _empty(BLOCK)
    apart = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        at = start + lane
        p, q = _read(p_row, at, width), _read(q_row, at, width)
        p_top, old, new = _step(p_top, p)
        p_sum, apart = p_sum * old + new, apart * old + _less(p, q, at, width) * new
        q_top, old, new = _step(q_top, q)
        q_sum = q_sum * old + new
    p_most, share = _highest(p_top)
    p_whole = _joined(p_sum, share)
    mean = _joined(apart, share) / p_whole  # of z_p - z_q under p
    q_most, share = _highest(q_top)
    q_whole = _joined(q_sum, share)
    shift = (p_most.to(tl.float64) - q_most) + tl.log(p_whole / q_whole)
    tl.store(rows + n, (mean - shift).to(tl.float32))
    p_scale, q_scale = (1.0 / p_whole).to(tl.float32), (1.0 / q_whole).to(tl.float32)
    middle = mean.to(tl.float32)
    if OF or TO:
        for start in range(0, width, BLOCK):
            at = start + lane
            z_p, z_q = _read(p_row, at, width), _read(q_row, at, width)
            p = _exp(z_p - p_most) * p_scale
            if OF:
                tl.store(of_row + at, p * ((z_p - z_q) - middle), mask=at < width)
            if TO:
                tl.store(to_row + at, _exp(z_q - q_most) * q_scale - p, mask=at < width)


@triton.jit
def compare(
    z_row,
    a_row,
    b_row,
    labels,
    found,
    z_step,
    a_step,
    b_step,
    count,
    width,
    BLOCK: tl.constexpr,
):
    """Of a role p and two others: what `Compared` keeps, float64 [8, n]."""
    n = tl.program_id(0).to(tl.int64)
    z_row, a_row, b_row = z_row + n * z_step, a_row + n * a_step, b_row + n * b_step
    lane, label = tl.arange(0, BLOCK), tl.load(labels + n)
    inside = (label >= 0) & (label < width)
    own = tl.load(a_row + label, mask=inside, other=float("nan"))
    own -= tl.load(b_row + label, mask=inside, other=float("nan"))
    z_top, z_sum = _empty(BLOCK)
    a_top, a_sum = _empty(BLOCK)
    b_top, b_sum = _empty(BLOCK)
    far, ratio = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        at = start + lane
        z, a, b = _read(z_row, at, width), _read(a_row, at, width), _read(b_row, at, width)
        z_top, old, new = _step(z_top, z)
        z_sum, far = z_sum * old + new, far * old + _less(z, a, at, width) * new
        ratio = ratio * old + _less(a, b, at, width) * new
        a_top, old, new = _step(a_top, a)
        a_sum = a_sum * old + new
        b_top, old, new = _step(b_top, b)
        b_sum = b_sum * old + new
    z_most, share = _highest(z_top)
    z_whole = _joined(z_sum, share)
    far_mean, ratio_mean = _joined(far, share) / z_whole, _joined(ratio, share) / z_whole
    a_most, share = _highest(a_top)
    a_whole = _joined(a_sum, share)
    b_most, share = _highest(b_top)
    b_whole = _joined(b_sum, share)
    a_scale, b_scale = (1.0 / a_whole).to(tl.float32), (1.0 / b_whole).to(tl.float32)
    between = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        at = start + lane
        a = _exp(_read(a_row, at, width) - a_most) * a_scale
        between += tl.abs(a - _exp(_read(b_row, at, width) - b_most) * b_scale)
    tl.store(found + n, z_most.to(tl.float64))
    tl.store(found + count + n, z_whole)
    tl.store(found + 2 * count + n, a_most + tl.log(a_whole))
    tl.store(found + 3 * count + n, b_most + tl.log(b_whole))
    tl.store(found + 4 * count + n, far_mean)
    tl.store(found + 5 * count + n, ratio_mean)
    tl.store(found + 6 * count + n, 0.5 * tl.sum(between.to(tl.float64), 0))
    tl.store(found + 7 * count + n, own.to(tl.float64))


@triton.jit
def beyond(
    z_row,
    a_row,
    b_row,
    weights,
    found,
    rows,
    g_row,
    z_step,
    a_step,
    b_step,
    g_step,
    count,
    width,
    LEARNS: tl.constexpr,
    FROM_FIRST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """KL(p || t), log t = log start + weight (log a - log b) + c, from what `compare` found.

    x = log p - log t: its mean under p needs no normaliser of t, so the gradient p (x - E x) is
    written in the pass that finds it.
    """
    n = tl.program_id(0).to(tl.int64)
    z_row, a_row, b_row = z_row + n * z_step, a_row + n * a_step, b_row + n * b_step
    g_row, lane = g_row + n * g_step, tl.arange(0, BLOCK)
    z_most, z_whole = tl.load(found + n).to(tl.float32), tl.load(found + count + n)
    a_log, b_log = tl.load(found + 2 * count + n), tl.load(found + 3 * count + n)
    ratio = tl.load(found + 5 * count + n)
    far = tl.load(found + 4 * count + n)
    weight = tl.load(weights + n)
    start_log = a_log
    if not FROM_FIRST:
        far += ratio
        start_log = b_log
    # One float32 for all tokens, so that its rounding cancels.
    shift, start_shift = (a_log - b_log).to(tl.float32), start_log.to(tl.float32)
    middle = far.to(tl.float32)
    mean = (far - middle) - weight.to(tl.float64) * (ratio - shift)
    scale, mean_here = (1.0 / z_whole).to(tl.float32), mean.to(tl.float32)
    top, total = _empty(BLOCK)
    for start in range(0, width, BLOCK):
        at = start + lane
        a, b = _read(a_row, at, width), _read(b_row, at, width)
        first = a if FROM_FIRST else b
        step = weight * (_less(a, b, at, width) - shift)
        target = tl.where(at < width, (first - start_shift) + step, -float("inf"))
        top, old, new = _step(top, target)
        total = total * old + new
        if LEARNS:
            z = _read(z_row, at, width)
            x = ((z - first) - middle) - step
            p = _exp(z - z_most) * scale
            tl.store(g_row + at, p * (x - mean_here), mask=at < width)
    most, share = _highest(top)
    z_log, t_log = z_most + tl.log(z_whole), most + tl.log(_joined(total, share))
    row = mean + middle + start_shift - z_log + t_log
    tl.store(rows + n, row.to(tl.float32))
