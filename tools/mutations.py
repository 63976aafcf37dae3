# ruff: noqa: E501  (a mutation is a line)
"""What mutation_check.py breaks. What stands before the colon of a name says whose tests have to see it."""

from __future__ import annotations

from dataclasses import dataclass

STEP, STEP_BACK, MEMBER, PARAMS, READOUT_OVER_TIME = (
    f"csrc/neuron/{name}.h" for name in ("step", "back", "member", "params", "readout")
)
LAUNCH_FORWARD = "csrc/cuda/launch_forward.cuh"
ACCESS, AHEAD, SLOPES, READOUT, BITS, TIERS = (
    f"csrc/cuda/{name}.cuh" for name in ("access", "ahead", "slopes", "readout", "bits", "tiers")
)
WIDE_FORWARD, WIDE_BACKWARD, LONG_FORWARD, LONG_BACKWARD, ANY = (
    f"csrc/cuda/{name}.cuh"
    for name in ("wide_forward", "wide_backward", "long_forward", "long_backward", "general")
)
PLAIN, PLAIN_ROWS, RECOMPUTE, BACK = (
    f"csrc/cpu/level/plain_{name}.inl" for name in ("forward", "rows", "recompute", "backward")
)
CPU_ROWS, CPU_FORWARD, CPU_BACKWARD = (
    f"csrc/cpu/level/wide_{name}.inl" for name in ("rows", "forward", "backward")
)
VECTOR, WORKSPACE, CPU_ACCESS, CPU_READOUT, STRIP, CPU_COLUMN, CPU_SLOPES = (
    f"csrc/cpu/level/{name}.inl"
    for name in ("vector", "workspace", "access", "readout", "strip", "column", "slopes")
)
EVENTS, PRODUCTS, SPIKE_WORDS = (
    f"csrc/cpu/level/{name}.inl" for name in ("events", "products", "spike_words")
)
DISPATCH = "csrc/cpu/dispatch.h"

RECURRENT, RECURRENT_BACK, RECURRENT_WEIGHTS, RECURRENT_ROWS = (
    f"csrc/cpu/level/recurrent_{name}.inl" for name in ("forward", "backward", "weights", "rows")
)
RECURRENT_CUDA = "csrc/cuda/recurrent.cuh"
WORDS_CUDA = "csrc/cuda/words.cuh"


@dataclass(frozen=True)
class Mutation:
    """A text of a source file, and the wrong one in its place."""

    name: str
    path: str
    right: str
    wrong: str

    @property
    def kind(self) -> str:
        """What stands before the colon of the name; "cpu" where there is none."""
        kind, colon, _ = self.name.partition(":")
        return kind if colon else "cpu"


MUTATIONS = [
    Mutation("reset sign", STEP, "return sub(u, mul(theta, s));", "return add(u, mul(theta, s));"),
    Mutation("strict and not", STEP, "return u > theta ? number<S>(1)", "return u >= theta ? number<S>(1)"),
    Mutation("silence a step short", STEP, "? refractory : fewer;", "? refractory - number<S>(1) : fewer;"),
    Mutation("the last of the largest", READOUT_OVER_TIME, "v > peak.value ? one", "v >= peak.value ? one"),
    Mutation("the largest without NaN", READOUT_OVER_TIME, "const S higher = v > peak.value ? one : first_nan;", "const S higher = v > peak.value ? one : zero;"),
    Mutation("a floor without NaN", STEP, "return v >= v_min ? v : v != v ? v : v_min;", "return v >= v_min ? v : v_min;"),
    Mutation("a gradient through the floor", STEP_BACK, "a = v >= own.v_min ? a : number<S>(0);", "a = v > own.v_min ? a : number<S>(0);"),
    Mutation("cpu: a floor, and the step before", CPU_COLUMN, "return neuron.delayed && !neuron.floored;", "return neuron.delayed;"),
    Mutation("reset gradient sign", STEP_BACK, "sub(g, mul(theta, a))", "add(g, mul(theta, a))"),
    Mutation("adaptation forgets", STEP, "return add(mul(rho, b), s);", "return add(b, s);"),
    Mutation("cpu: missing detach", STEP_BACK, "const bool detached = kind.detached || kind.delayed;", "const bool detached = false;"),
    Mutation("cpu: lengths forgotten", WORKSPACE, "steps_of(extent, lengths, neuron)};", "extent.steps};"),
    Mutation("cpu: a sample of another", PARAMS, "neuron / lengths.repeat % lengths.period]", "neuron % lengths.period]"),
    Mutation("cpu: padding left as it was", CPU_ACCESS, "t < extent.steps; ++t) {", "t + 1 < extent.steps; ++t) {"),
    Mutation("cpu: a rate over all steps", CPU_READOUT, "return static_cast<S>(block.steps > 0 ? block.steps : 1);", "return static_cast<S>(block.steps + 1);"),
    Mutation("cpu: lost tail", WORKSPACE, "tiling.neurons ? left :", "tiling.neurons ? left - (left % 8 == 3) :"),
    Mutation("cpu: repeat ignored", CPU_ACCESS, "int64_t at = block.neuron / parameter.repeat %", "int64_t at = block.neuron %"),
    Mutation("cpu: count as rate", CPU_READOUT, "count, rate_divisor<S>(block), block.size);", "count, S(1), block.size);"),
    Mutation("cpu: checkpoint late", CPU_FORWARD, "      until_checkpoint = args.checkpoint_every;\n", "      until_checkpoint = args.checkpoint_every + 1;\n"),
    Mutation("cpu: a tile over a checkpoint", CPU_FORWARD, "smaller(steps - t, until_checkpoint));", "steps - t);"),
    Mutation("cpu: one checkpoint for all states", CPU_BACKWARD, "args.checkpoints + slot++ * neurons", "args.checkpoints + slot * neurons"),
    Mutation("cpu: silent neurons learn", CPU_BACKWARD, "kind.refractory ? (silent > number<V>(0) ? number<V>(0) : h) : h;", "h;"),
    Mutation("cpu: trace gradient lost", CPU_BACKWARD, "a = add(a, load(tile.grad_trace.at(j, i + lane)));", "a = add(a, V{});"),
    Mutation("cpu: gain forgotten", CPU_ROWS, "own.gain = load(rows.parameter[kGain] + i);", "own.gain = number<Vector<S>>(1);"),
    Mutation("cpu: strict forgotten", CPU_ROWS, "level = neuron.strict ? workspace.row() : parameter[kThreshold];", "level = parameter[kThreshold];"),
    Mutation("pages: end of a block, read", STRIP, "if (!from.uniform && n % kWideGroup<S> == 0) {", "if (!from.uniform) {"),
    Mutation("cpu: end of a block, written", STRIP, "if (direct_ || n % kWideGroup<S> == 0) {", "if (true) {"),
    Mutation("cpu: end of a block, one step", STRIP, "copy_row(to_.at(j, 0), data_ + j * kWideStrip<S>, n);", "copy_row(to_.at(j, 0), data_, n);"),
    Mutation("cpu: membrane of this step", CPU_COLUMN, "shares ? Rows<S>{u.data - stride, stride, false}", "shares ? Rows<S>{u.data, stride, false}"),
    Mutation("cpu: membrane not kept", CPU_COLUMN, "return learn || (neuron.delayed && neuron.reset == Reset::zero);", "return learn;"),
    Mutation("cpu: a threshold that stands", CPU_SLOPES, "if (b != nullptr) {", "if (false) {"),
    Mutation("cpu: another shape", CPU_SLOPES, "slopes_strip<Shape::gaussian>", "slopes_strip<Shape::piecewise_exp>"),
    Mutation("cpu: neighbours swapped", CPU_SLOPES, "return table_line(low, high,", "return table_line(high, low,"),
    Mutation("cpu: first spike after the rest", CPU_BACKWARD, "const bool steady = is_steady(args) && !tile.timed;", "const bool steady = is_steady(args);"),
    Mutation("cpu: the sum as the mean", CPU_FORWARD, "rows.sum_v, rate_divisor<S>(block), n);", "rows.sum_v, S(1), n);"),
    Mutation("cpu: the largest of a tile", CPU_FORWARD, "splat(static_cast<S>(tile.t + j)));\n          store(rows.highest", "splat(static_cast<S>(j)));\n          store(rows.highest"),
    Mutation("cpu: later than the first spike", CPU_BACKWARD, "first_spike_earlier(load(rows.grad_first + i + lane), later, was[k].s));", "later);"),
    Mutation("cpu: bits of one step", CPU_BACKWARD, "words, fired_bit(t + j), S(1), size);", "words, fired_bit(t), S(1), size);"),
    Mutation("cpu: a word of bits begins anew", CPU_FORWARD, "if (t % kStepsOfWord == 0) {", "if (t == 0) {"),
    Mutation("cpu: counts, and the spikes alone", CPU_FORWARD, "const bool further = is_counted(args) ||", "const bool further ="),
    Mutation("cpu: digits of NaN", VECTOR, "kExact ? bits : value != value ? bits | kQuiet : nearest_bfloat16(bits);", "kExact ? bits : nearest_bfloat16(bits);"),
    Mutation("plain: leak forgotten", BACK, "a.at[k] = mul(beta.at[k], d.at[k]);", "a.at[k] = d.at[k];"),
    Mutation("plain: end of a block", PLAIN, "if (whole < n) {\n    Tail<T> x,", "if (whole + 1 < n) {\n    Tail<T> x,"),
    Mutation("plain: end of a block, slopes", RECOMPUTE, "if (whole < n) {\n    Tail<T> x;", "if (whole + 1 < n) {\n    Tail<T> x;"),
    Mutation("plain: end of a block, backward", BACK, "if (whole < n) {\n    Tail<T> g,", "if (whole + 1 < n) {\n    Tail<T> g,"),
    Mutation("plain: checkpoint late", PLAIN, "      until_checkpoint = args.checkpoint_every;\n", "      until_checkpoint = args.checkpoint_every + 1;\n"),
    Mutation("plain: a tile over a checkpoint", PLAIN, "smaller(most, smaller(steps - t, until_checkpoint));", "smaller(most, steps - t);"),
    Mutation("plain: missing detach", BACK, "neuron.detach_reset ? backward_groups<kReset, true>(", "neuron.detach_reset ? backward_groups<kReset, false>("),
    Mutation("plain: first step of a chunk", BACK, "tile.first = t == begin;", "tile.first = t == 0;"),
    Mutation("plain: counts forgotten", BACK, "constant = load_group(rows.constant + i);", "constant = Group<S>{};"),
    Mutation("plain: gain forgotten", PLAIN, "!has_gain(args.parameter) &&", ""),
    Mutation("plain: gain forgotten, backward", RECOMPUTE, "!has_gain(args.parameter) &&", ""),
    Mutation("plain: a scale is left out", RECOMPUTE, "const bool unit = tile.scale == S(1);", "const bool unit = true;"),
    Mutation("plain: threshold alone", BACK, "if (tile.by_theta) {", "if (false) {"),
    Mutation("plain: a scale is left out on the way", BACK, "const bool unit = surrogate.scale == S(1);", "const bool unit = true;"),
    Mutation("plain: another shape on the way", BACK, "return kSlopes == Slopes::atan ?", "return false ?"),
    Mutation("plain: membrane of this step", BACK, "before = load_group(tile.u.at(j - 1, i));", "before = load_group(tile.u.at(j, i));"),
    Mutation("plain: counts beside spikes", RECOMPUTE, "|| moves == counted) {", "|| (!moves && !counted)) {"),
    Mutation("plain: repeated gradient, no counts", CPU_READOUT, "any ? add_row(sum, term, n) : copy_row(sum, term, n);", "copy_row(sum, term, n);"),
    Mutation("plain: odd neurons are even", PLAIN_ROWS, "to[i + 2 * lane + 1] = row[i + kHalf + lane];", "to[i + 2 * lane + 1] = row[i + lane];"),
    Mutation("plain: end of a pair", PLAIN_ROWS, "row[i + j % 2 * kHalf + j / 2] = clean(from[i + j]);", "row[i + j] = clean(from[i + j]);"),
    Mutation("plain: digits of NaN", PLAIN_ROWS, "std::isnan(value) ? std::numeric_limits<S>::quiet_NaN() : value;", "value;"),
    Mutation("plain: a short tile", PLAIN_ROWS, "if (steps == kTileSteps) {", "if (steps >= kTileSteps - 1) {"),
    Mutation("plain: sum of the last step", BACK, "sum = each(sum, d, [](auto one, auto other) { return add(one, other); });", "sum = d;"),
    Mutation("plain: slopes, and the threshold learns", RECOMPUTE, " && args.grad_parameter[kThreshold] == nullptr", ""),
    Mutation("plain: slopes of another shape", RECOMPUTE, "shape == Shape::atan ? slopes_groups", "true ? slopes_groups"),
    Mutation("plain: entered the tile, not the step", BACK, "v = load_group(tile.entered.at(j, i));", "v = load_group(tile.entered.at(0, i));"),
    Mutation("plain: streams where it cannot", PLAIN, "bool collide = reinterpret_cast<uintptr_t>(spikes) % kLine != 0;", "bool collide = false;"),
    Mutation("events: the last tile's sums", PRODUCTS, "        tile.from = tile.to;\n", ""),
    Mutation("events: minus zero", PRODUCTS, "start[n] = add(S(0), widen(args.bias[first + n]));", "start[n] = widen(args.bias[first + n]);"),
    Mutation("events: dense rows of silence", PRODUCTS, "static_cast<Where<S>>(uint64_t{0} - set);", "static_cast<Where<S>>(set - 1);"),
    Mutation("events: columns of a panel's end", PRODUCTS, "    copy_row(to, buffer, tile.columns);\n", "    copy_row(to, buffer, tile.columns - 1);\n"),
    Mutation("events: gradients from a task's first input", PRODUCTS, "tile.words = args.columns + begin * column_words + w;", "tile.words = args.columns + w;"),
    Mutation("events: no more spikes than are listed at once", EVENTS, "listed += spikes;", "listed += spikes < kListedAtOnce ? spikes : kListedAtOnce;"),
    Mutation("events: other numbers are spikes", SPIKE_WORDS, "strange |= fired & (value != one);", "static_cast<void>(one);"),
    Mutation("events: the next row of words", SPIKE_WORDS, "smaller(kSpikesOfWord, smaller(neurons - column, n - i))", "smaller(kSpikesOfWord, n - i)"),
    Mutation("events: tasks share words", DISPATCH, ": args.packed_neurons % 64 == 0 ? 64 : args.packed_neurons;", ": 64;"),
    Mutation("events: bits behind the last spike", SPIKE_WORDS, "return -1;", "continue;"),
    Mutation("cuda: lost tail", WIDE_FORWARD, "if (neuron >= neurons(args.extent)) {", "if (neuron + 1 >= neurons(args.extent)) {"),
    Mutation("cuda: lost tail, backward", WIDE_BACKWARD, "if (neuron >= neurons(args.extent)) {", "if (neuron + 1 >= neurons(args.extent)) {"),
    Mutation("cuda: a load too few", AHEAD, "if (left - j > kSteps) {", "if (left - j > kSteps + 1) {"),
    Mutation("cuda: checkpoint late", WIDE_FORWARD, "/ kAhead<T, W>;", "/ kAhead<T, W> + 1;"),
    Mutation("cuda: first step of a chunk", WIDE_BACKWARD, "decltype(at_end)::value && here.own == column.own;", "false && here.own == column.own;"),
    Mutation("cuda: v of this step", WIDE_BACKWARD, "const Step<S> before{earlier[w].u, earlier[w].s,", "const Step<S> before{was[w].u, was[w].s,"),
    Mutation("cuda: adaptation kept", WIDE_BACKWARD, "pack_of<W>(states, kAdaptation);", "pack_of<W>(states, kMembrane);"),
    Mutation("cuda: counts forgotten", WIDE_BACKWARD, "g_now.at[w] = add(g_now.at[w], constant.at[w]);", ""),
    Mutation("cuda: silent neurons learn", SLOPES, "h.at[w] = q.at[w] > S(0) ? S(0) : h.at[w];", ""),
    Mutation("cuda: reciprocals of any size", SLOPES, "return most < kReciprocalIsNormal;", "return true;"),
    Mutation("cuda: missing detach", MEMBER, "same = same && Kind::detached == neuron.detach_reset;", ""),
    Mutation("cuda: strict forgotten", ACCESS, "neuron.strict && !kind.strict ? next_above(own.theta) : own.theta;", "own.theta;"),
    Mutation("cuda: a channel too long", ACCESS, "if (++within == parameter.repeat) {", "if (within++ == parameter.repeat) {"),
    Mutation("cuda: aligned rows", TIERS, "aligned_ = aligned_ && stride % width_ == 0;", "static_cast<void>(stride);"),
    Mutation("cuda: total of one lane", READOUT, "*total += spikes;", "*total = spikes;"),
    Mutation("cuda: the total hides the count", "lif_cuda/_autograd.py", """incoming["count"] + of_each if "count" in incoming else of_each""", "of_each"),
    Mutation("cuda: gradient of a sum", READOUT, "if (steady_spikes(args)) {", "if (false) {"),
    Mutation("cuda: current gradient lost", STEP_BACK, "dx = add(dx, to.of[kCurrent]);", ""),
    Mutation("cuda: rest in the gradient", STEP_BACK, "kind.rested ? sub(from, own.rest) : from", "from"),
    Mutation("cuda: delayed threshold", STEP_BACK, "sums.theta = sub(sums.theta, mul(r, d));", ""),
    Mutation("cuda: a last word's steps", BITS, "word.at[w] >>= 2 * missing;", "word.at[w] >>= 0 * missing;"),
    Mutation("cuda: a first word's steps", BITS, "word.at[w] <<= 2 * (kStepsOfWord - in_word);", ""),
    Mutation("cuda: inside is fired", BITS, "word.at[w] & kInsideAtTop ?", "word.at[w] & kFiredAtTop ?"),
    Mutation("cuda: a copy too early", LONG_FORWARD, "__pipeline_wait_prior(kStages - 2);", "__pipeline_wait_prior(kStages - 1);"),
    Mutation("cuda: no barrier of a warp", LONG_FORWARD, "__syncwarp();", ""),
    Mutation("cuda: rest of a stage", LONG_FORWARD, "j < steps - whole * kStage", "j + 1 < steps - whole * kStage"),
    Mutation("cuda: last checkpoint", LONG_FORWARD, "keep_states(whole);", ""),
    Mutation("cuda: rounds share a buffer", LONG_BACKWARD, "(round % 2 * producers + producer)", "(producer)"),
    Mutation("cuda: no barrier of a block", LONG_BACKWARD, "    __syncthreads();\n", ""),
    Mutation("cuda: the gradient of a mean at each step", ANY, "a = add(a, grad_mean);", ""),
    Mutation("cuda: a floor of another neuron", ACCESS, "v_min = load_parameter<W>(parameter[kFloor], at);", "v_min = splat<S, W>(parameter[kFloor].value);"),
    Mutation("cuda: lengths as they come", PARAMS, "return length < 0 ? 0 : length < extent.steps ? length : extent.steps;", "return length;"),
    Mutation("cuda: lengths in a lean kernel", LAUNCH_FORWARD, " ||\n         args.lengths.values != nullptr;", ";"),
    Mutation("cuda: padding left as it was", ANY, "row != nullptr && t < last; ++t", "row != nullptr && t + 1 < last; ++t"),
    Mutation("cuda: later than the first spike", ANY, "later = first_spike_earlier(grad_first, later, was.s);", ""),
    Mutation("cuda: trace gradient lost", ANY, "a = add(a, lif::widen(g_trace[t * args.grad_trace.time_stride]));", "a = add(a, lif::widen(T{}));"),
    Mutation("recurrent: another order of spikes", "csrc/cpu/level/events.inl", "for (int64_t w = 0; w < count; ++w) {", "for (int64_t w = count - 1; w >= 0; --w) {"),
    Mutation("recurrent: bias forgotten", RECURRENT, "copy_row(bias, args.bias, n);", ""),
    Mutation("recurrent: first spikes forgotten", RECURRENT, "pack_row(bits, args.fired + (first + b) * n, n);", "fill_row(bits, uint64_t{0}, words);"),
    Mutation("recurrent: samples share a count", RECURRENT, "add_row(count + b * workspace.stride(), s_row, n);", "add_row(count, s_row, n);"),
    Mutation("recurrent: strict forgotten", RECURRENT_ROWS, "if (neuron.strict) {", "if (false) {"),
    Mutation("recurrent: neurons of a last vector", RECURRENT_ROWS, "fill_row(row + neurons, beyond, whole - neurons);", "fill_row(row + neurons, S(-1), whole - neurons);"),
    Mutation("recurrent: membrane of this step", RECURRENT_BACK, "back.before = row_at(args.u, t - 1, sample);", "back.before = row_at(args.u, t, sample);"),
    Mutation("recurrent: the last samples of a block", RECURRENT_BACK, "for (; b < size; ++b) {\n        multiply_panel<1>", "for (; b + 1 < size; ++b) {\n        multiply_panel<1>"),
    Mutation("recurrent: steady gradient lost", RECURRENT_BACK, "add_row(spikes, args.grad_steady + sample * n, n);", ""),
    Mutation("recurrent: gradient of the first spikes", RECURRENT_BACK, "if (t > 0 || args.grad_fired != nullptr) {", "if (t > 0) {"),
    Mutation("recurrent: half of a word", RECURRENT_WEIGHTS, "words[i][w] = bits[half + i];", "words[i][w] = bits[i];"),
    Mutation("recurrent: a last block of rows", RECURRENT_WEIGHTS, "row < args.rows ? args.fired_before", "row + 1 < args.rows ? args.fired_before"),
    Mutation("recurrent cuda: words of the step before", RECURRENT_CUDA, "(t + 1) % 2 * given.samples", "t % 2 * given.samples"),
    Mutation("recurrent cuda: no barrier of a block", RECURRENT_CUDA, "    }\n    __syncthreads();\n  }\n  for (int64_t b = 0; b < samples; ++b) {\n    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {\n      const int64_t at = (begin + b) * n + i;\n      if (args.count", "    }\n  }\n  for (int64_t b = 0; b < samples; ++b) {\n    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {\n      const int64_t at = (begin + b) * n + i;\n      if (args.count"),
    Mutation("recurrent cuda: spikes left out", RECURRENT_CUDA, "constexpr int kAtOnce = 4;", "constexpr int kAtOnce = 4;\n  neurons -= neurons % kWarp != 0;"),
    Mutation("words cuda: the last spike of a row", WORDS_CUDA, "const int64_t left = args.neurons - first;  //", "const int64_t left = args.neurons - first - 1;  //"),
    Mutation("words cuda: bits the other way round", WORDS_CUDA, "const unsigned place = static_cast<unsigned>(i + w);", "const unsigned place = static_cast<unsigned>(7 - i - w);"),
    Mutation("words cuda: fours where rows are ragged", "csrc/cuda/words.cu", "Alignment(kWide).stride(args.neurons).pointer(spikes)", "Alignment(kWide).pointer(spikes)"),
]  # fmt: skip
