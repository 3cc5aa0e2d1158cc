"""Triton programs over rows of float32 logits; one program reads one row, a block at a time.

Every sum is kept lane by lane in float32, rescaled as the lane's maximum rises, and joined over the
lanes in float64. Differences of logits are taken before any normaliser, and in gradients less that
of the most probable token: a constant apart from the vocabulary cancels in KL and in its gradient,
and where all mass is on one token nothing is left of it. Stores go over what the same program has
read: with bfloat16 over the first half of a row, which is behind what is still to be read.
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
def _base(row, width):
    """What is taken off a row that is far from 0 as a whole, seen on tokens from all over it.

    Without rounding what is near it: the roles' differences need the digits.
    """
    at = tl.arange(0, 64) * tl.maximum(width // 64, 1)
    most = tl.max(tl.load(row + at, mask=at < width, other=-float("inf")), 0)
    return tl.where((tl.abs(most) < 64.0) | (most < LOWEST), 0.0, tl.floor(most + 0.5))


@triton.jit
def _read(row, base, at, width):
    return tl.load(row + at, mask=at < width, other=-float("inf")) - base


@triton.jit
def _label(row, base, labels, n, width):
    """The label's entry; no number where there is no such token."""
    label = tl.load(labels + n)
    inside = (label >= 0) & (label < width)
    return tl.load(row + label, mask=inside, other=float("nan")) - base


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
def _best(top, place, most):
    """Where the row's maximum is."""
    return tl.maximum(tl.max(tl.where(top == most, place, -1), 0), 0)


@triton.jit
def _joined(lanes, share):
    return tl.sum(lanes.to(tl.float64) * share, 0)


@triton.jit
def _write(g_row, at, x, width):
    """A gradient; bfloat16 may lie over logits of the row's other lanes, so all are read first."""
    if g_row.dtype.element_ty == tl.bfloat16:
        tl.debug_barrier()
    tl.store(g_row + at, x.to(g_row.dtype.element_ty), mask=at < width)


@triton.jit
def log_prob(
    z_row, labels, rows, g_row, z_step, g_step, width, LEARNS: tl.constexpr, BLOCK: tl.constexpr
):
    """Log p(label); d row / d logits is [v = label] - p."""
    n = tl.program_id(0).to(tl.int64)
    z_row, g_row, lane = z_row + n * z_step, g_row + n * g_step, tl.arange(0, BLOCK)
    label = tl.load(labels + n)
    own = _label(z_row, 0.0, labels, n, width).to(tl.float64)  # before anything is stored
    top, total = _empty(BLOCK)
    for start in range(0, width, BLOCK):
        top, old, new = _step(top, _read(z_row, 0.0, start + lane, width))
        total = total * old + new
    most, share = _highest(top)
    whole = _joined(total, share)
    tl.store(rows + n, (own - most - tl.log(whole)).to(tl.float32))
    if LEARNS:
        scale = (1.0 / whole).to(tl.float32)
        for start in range(0, width, BLOCK):
            at = start + lane
            p = _exp(_read(z_row, 0.0, at, width) - most) * scale
            _write(g_row, at, tl.where(at == label, 1.0 - p, -p), width)


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
    p_base, q_base = _base(p_row, width), _base(q_row, width)
    p_top, p_sum = _empty(BLOCK)
    place = tl.zeros([BLOCK], tl.int32)
    q_top, q_sum = _empty(BLOCK)
    apart = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        at = start + lane
        p, q = _read(p_row, p_base, at, width), _read(q_row, q_base, at, width)
        place = tl.where(p > p_top, at, place)
        p_top, old, new = _step(p_top, p)
        p_sum, apart = p_sum * old + new, apart * old + _less(p, q, at, width) * new
        q_top, old, new = _step(q_top, q)
        q_sum = q_sum * old + new
    p_most, share = _highest(p_top)
    p_whole = _joined(p_sum, share)
    mean = _joined(apart, share) / p_whole  # of z_p - z_q under p
    best = _best(p_top, place, p_most)
    pivot = (tl.load(p_row + best) - p_base) - (tl.load(q_row + best) - q_base)
    q_most, share = _highest(q_top)
    q_whole = _joined(q_sum, share)
    shift = (p_most.to(tl.float64) - q_most) + tl.log(p_whole / q_whole)
    tl.store(rows + n, (mean - shift).to(tl.float32))
    p_scale, q_scale = (1.0 / p_whole).to(tl.float32), (1.0 / q_whole).to(tl.float32)
    rest = (mean - pivot).to(tl.float32)
    if OF or TO:
        tl.debug_barrier()  # everybody has read the pivot
        for start in range(0, width, BLOCK):
            at = start + lane
            z_p, z_q = _read(p_row, p_base, at, width), _read(q_row, q_base, at, width)
            p = _exp(z_p - p_most) * p_scale
            if OF:
                _write(of_row, at, p * (((z_p - z_q) - pivot) - rest), width)
            if TO:
                _write(to_row, at, _exp(z_q - q_most) * q_scale - p, width)


@triton.jit
def _distance(
    a_row, b_row, a_base, b_base, a_most, b_most, a_scale, b_scale, width, BLOCK: tl.constexpr
):
    """Sum |a - b| of two rows' probabilities."""
    far = tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        a = _exp(_read(a_row, a_base, at, width) - a_most) * a_scale
        far += tl.abs(a - _exp(_read(b_row, b_base, at, width) - b_most) * b_scale)
    return tl.sum(far.to(tl.float64), 0)


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
    """Of a role p and two others: what `Compared` keeps, float64 [9, n]."""
    n = tl.program_id(0).to(tl.int64)
    z_row, a_row, b_row = z_row + n * z_step, a_row + n * a_step, b_row + n * b_step
    lane, z_base, a_base, b_base = (
        tl.arange(0, BLOCK),
        _base(z_row, width),
        _base(a_row, width),
        _base(b_row, width),
    )
    own = _label(a_row, a_base, labels, n, width) - _label(b_row, b_base, labels, n, width)
    z_top, z_sum = _empty(BLOCK)
    place = tl.zeros([BLOCK], tl.int32)
    a_top, a_sum = _empty(BLOCK)
    b_top, b_sum = _empty(BLOCK)
    far, ratio = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, width, BLOCK):
        at = start + lane
        z, a = _read(z_row, z_base, at, width), _read(a_row, a_base, at, width)
        b = _read(b_row, b_base, at, width)
        place = tl.where(z > z_top, at, place)
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
    between = _distance(
        a_row, b_row, a_base, b_base, a_most, b_most, a_scale, b_scale, width, BLOCK
    )
    tl.store(found + n, z_most.to(tl.float64))
    tl.store(found + count + n, z_whole)
    tl.store(found + 2 * count + n, a_most + tl.log(a_whole))
    tl.store(found + 3 * count + n, b_most + tl.log(b_whole))
    tl.store(found + 4 * count + n, far_mean)
    tl.store(found + 5 * count + n, ratio_mean)
    tl.store(found + 6 * count + n, 0.5 * between)
    tl.store(found + 7 * count + n, own.to(tl.float64))
    tl.store(found + 8 * count + n, _best(z_top, place, z_most).to(tl.float64))


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
    BLOCK: tl.constexpr,
):
    """KL(p || t), log t = log a + weight (log a - log b) + c, from what `compare` found.

    x = log p - log t: its mean under p needs no normaliser of t, so the gradient p (x - E x) is
    written in the pass that finds it.
    """
    n = tl.program_id(0).to(tl.int64)
    z_row, a_row, b_row = z_row + n * z_step, a_row + n * a_step, b_row + n * b_step
    g_row, lane = g_row + n * g_step, tl.arange(0, BLOCK)
    z_base, a_base, b_base = _base(z_row, width), _base(a_row, width), _base(b_row, width)
    z_most, z_whole = tl.load(found + n).to(tl.float32), tl.load(found + count + n)
    a_log = tl.load(found + 2 * count + n).to(tl.float32)
    far, ratio = tl.load(found + 4 * count + n), tl.load(found + 5 * count + n)
    weight = tl.load(weights + n)
    best = tl.load(found + 8 * count + n).to(tl.int64)
    best_a = tl.load(a_row + best) - a_base
    # Of the most probable token, and one float32 for all, so that its rounding cancels.
    shift, middle = (
        best_a - (tl.load(b_row + best) - b_base),
        tl.load(z_row + best) - z_base - best_a,
    )
    mean = (far - middle) - weight.to(tl.float64) * (ratio - shift)
    scale, mean_here = (1.0 / z_whole).to(tl.float32), mean.to(tl.float32)
    if LEARNS:
        tl.debug_barrier()  # everybody has read single tokens
    top, total = _empty(BLOCK)
    for start in range(0, width, BLOCK):
        at = start + lane
        a, b = _read(a_row, a_base, at, width), _read(b_row, b_base, at, width)
        step = weight * (_less(a, b, at, width) - shift)
        target = tl.where(at < width, (a - a_log) + step, -float("inf"))
        top, old, new = _step(top, target)
        total = total * old + new
        if LEARNS:
            z = _read(z_row, z_base, at, width)
            x = ((z - a) - middle) - step
            p = _exp(z - z_most) * scale
            _write(g_row, at, p * (x - mean_here), width)
    most, share = _highest(top)
    z_log, t_log = z_most + tl.log(z_whole), most + tl.log(_joined(total, share))
    row = mean + middle + a_log - z_log + t_log
    tl.store(rows + n, row.to(tl.float32))
