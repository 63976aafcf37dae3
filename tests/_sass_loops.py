"""Loops of a kernel's machine code, and what one iteration of each does.

A loop is told from another by its memory operations. In a kernel of ours these mark the steps:

    forward    reads x (LDG, or LDS behind copies in flight, LDGSTS), stores spikes (STG)
    recompute  reads x (LDG or LDGSTS), stores columns (STS)
    surrogate  reads and stores columns (LDS, STS); with LDG too it looks up a table
    back       reads columns (LDS) and stores the gradient (STG)
    whole      stores both ways: what should be loops was unrolled, into a loop around them

Counted are the instructions in the loop, slow paths within it included: whatever block of code can come back
to the loop's begin belongs to it, wherever it lies. What is called does not, nor NOP. A loop that the
compiler has unrolled to the end is none, and is not reported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from _sass import Function, Instruction

# What stands behind these is not reached from them, unless they have a condition.
_LEAVES = {"BRA", "BRX", "JMP", "JMX", "EXIT", "RET", "KILL", "BPT"}
# These end a block too: the routine that they call comes back behind them.
_ENDS = _LEAVES | {"CALL"}


class Graph:
    """Basic blocks of a function that are reached without a call, in an order in which edges run forwards
    unless they close a loop."""

    def __init__(self, function: Function) -> None:
        code = function.instructions
        index = {instruction.address: i for i, instruction in enumerate(code)}
        targets = {i: _targets(function, i) for i, at in enumerate(code) if at.base in _LEAVES}
        begins = {0} | {index[address] for addresses in targets.values() for address in addresses}
        begins |= {i + 1 for i, at in enumerate(code[:-1]) if at.base in _ENDS}
        starts = sorted(begins)
        ends = [*starts[1:], len(code)]
        follow: dict[int, list[int]] = {}
        for start, end in zip(starts, ends, strict=True):
            following = [index[address] for address in targets.get(end - 1, ())]
            if end < len(code) and not _leaves(code[end - 1]):
                following.append(end)
            follow[start] = following
        order = _reverse_postorder(follow)
        number = {start: i for i, start in enumerate(order)}
        length = dict(zip(starts, ends, strict=True))
        self.blocks = [code[start : length[start]] for start in order]
        self.after = [sorted({number[to] for to in follow[start]}) for start in order]
        self.before: list[list[int]] = [[] for _ in order]
        for block, following in enumerate(self.after):
            for to in following:
                self.before[to].append(block)

    def dominators(self) -> list[int]:
        """Of each block, the set (as bits) of those that every way to it leads through."""
        every = (1 << len(self.blocks)) - 1
        found = [1] + [every] * (len(self.blocks) - 1)
        changed = True
        while changed:
            changed = False
            for block in range(1, len(self.blocks)):
                common = every
                for earlier in self.before[block]:
                    common &= found[earlier]
                common |= 1 << block
                changed = changed or common != found[block]
                found[block] = common
        return found

    def reach(self) -> list[int]:
        """Of each block, the set (as bits) of those that it leads to without closing a loop."""
        found = [0] * len(self.blocks)
        for block in reversed(range(len(self.blocks))):
            for to in self.after[block]:
                if to > block:
                    found[block] |= found[to] | 1 << to
        return found


def _leaves(instruction: Instruction) -> bool:
    """Whether what stands behind the instruction is not reached from it."""
    # Some conditions stand among the operands: `BRA P1, 0x1a0`, `BRA.DIV UR4, 0x2b0`.
    conditional = instruction.predicate not in ("", "PT") or len(instruction.operands) > 1
    return instruction.base in _LEAVES and not conditional


def _targets(function: Function, at: int) -> tuple[int, ...]:
    """Addresses that a branch may go to."""
    branch = function.instructions[at]
    if branch.base in ("BRX", "JMX"):
        return _table_targets(function, at)
    if branch.base in ("BRA", "JMP"):
        return (int(branch.operands[-1], 16),)
    return ()


def _table_targets(function: Function, at: int) -> tuple[int, ...]:
    """Addresses that a switch may go to: the part of the table that begins where the load before it says."""
    code = function.instructions
    loads = [
        (i, one.operands[0], int(match.group(1) or "0", 16))
        for i, one in enumerate(code)
        if one.base == "LDC" and (match := re.match(r"c\[0x2\]\[R\d+\+?(0x[0-9a-f]+)?\]", one.operands[1]))
    ]
    register, _, relative = code[at].operands[0].partition(" ")
    base = next((base for i, loaded, base in reversed(loads) if i < at and loaded == register), None)
    addresses: set[int] = set()
    if base is not None:
        end = min((other for _, _, other in loads if other > base), default=4 * len(function.table))
        origin = code[at].address + 16 + int(relative or "0", 16)
        addresses = {origin + word for word in function.table[base // 4 : end // 4]}
    found = addresses & {instruction.address for instruction in code}
    if not found:
        # Without its ways on, loops would be missed or taken for others.
        raise ValueError(f"{function.name}: no table for {code[at]}")
    return tuple(sorted(found))


def _reverse_postorder(follow: dict[int, list[int]]) -> list[int]:
    done: list[int] = []
    seen = {0}
    stack = [(0, iter(follow[0]))]
    while stack:
        start, rest = stack[-1]
        to = next((to for to in rest if to not in seen), None)
        if to is None:
            done.append(start)
            stack.pop()
        else:
            seen.add(to)
            stack.append((to, iter(follow[to])))
    return done[::-1]


@dataclass(frozen=True)
class Loop:
    """A loop, with what is stored on the way through it that stores most."""

    address: int
    blocks: int  # of the graph, as bits
    instructions: tuple[Instruction, ...]
    global_bytes: int
    shared_bytes: int

    @cached_property
    def counts(self) -> Counter[str]:
        """Instructions by what they do; `MUFU.RCP` stands for itself and in MUFU."""
        found = Counter(instruction.base for instruction in self.instructions)
        found["MUFU.RCP"] = sum(one.opcode == "MUFU.RCP" for one in self.instructions)
        return found

    @property
    def total(self) -> int:
        """All its instructions."""
        return len(self.instructions)

    @property
    def kind(self) -> str:
        """What it does, or "other"."""
        has = self.counts
        if has["STG"]:
            if has["STS"]:
                return "whole"
            if has["LDS"]:
                return "forward" if has["LDGSTS"] else "back"
            return "forward" if has["LDG"] else "other"
        if has["STS"]:
            if has["LDS"] and not has["LDGSTS"]:
                return "surrogate"
            return "recompute" if has["LDG"] or has["LDGSTS"] else "other"
        return "other"

    @property
    def flavour(self) -> str:
        """Which surrogate a pass computes, as far as instructions tell.

        Neither the order of the passes in the code is sure, nor is one told from another by its arithmetic.
        Sure are these: a division asks FCHK whether its fast path will do; a reciprocal is MUFU.RCP without
        that; a table is looked up in global memory; the others are plain. Where several passes are of one
        flavour, their counts stand side by side, sorted.
        """
        if self.counts["FCHK"]:
            return "division"
        if self.counts["MUFU.RCP"]:
            return "reciprocal"
        return "table" if self.counts["LDG"] else "plain"

    @property
    def marker(self) -> int:
        """Bytes an iteration of that store which marks a step of this kind of loop."""
        return self.shared_bytes if self.kind in ("recompute", "surrogate") else self.global_bytes


def loops(function: Function) -> list[Loop]:
    """Natural loops of a function, by address; those with one begin are one."""
    graph = Graph(function)
    return [_loop(graph, header, blocks) for header, blocks in _natural(graph).items()]


def main_loops(function: Function, amount: Callable[[Loop], int] = lambda loop: loop.marker) -> list[Loop]:
    """The loops that do the work: innermost ones, without those for what is left over of whole groups.

    A loop counts as innermost where no loop in it is of a known kind. Loops of one kind of which one runs
    before the other share the work. The main one is unrolled: it does at least half as much an iteration as
    any, and of those it is the leanest for what it does, as steps that are tested one by one cost more. Those
    that exclude each other, such as the passes of a switch, all are main loops. `amount` says how much a loop
    does an iteration; one that does nothing is none.
    """
    graph = Graph(function)
    reach = graph.reach()
    natural = _natural(graph)
    known = [(header, _loop(graph, header, blocks)) for header, blocks in natural.items()]
    known = [(header, loop) for header, loop in known if loop.kind != "other"]
    inner = [
        (header, loop)
        for header, loop in known
        if not any(other is not loop and other.blocks & ~loop.blocks == 0 for _, other in known)
    ]
    groups: list[list[tuple[int, Loop]]] = []
    for header, loop in inner:
        linked = [
            group
            for group in groups
            if any(
                other.kind == loop.kind and (reach[at] >> header & 1 or reach[header] >> at & 1)
                for at, other in group
            )
        ]
        groups = [group for group in groups if group not in linked]
        groups.append([(header, loop), *(one for group in linked for one in group)])
    chosen = [_main([loop for _, loop in group], amount) for group in groups]
    return sorted((loop for loop in chosen if amount(loop)), key=lambda loop: loop.address)


def _main(sharing: list[Loop], amount: Callable[[Loop], int]) -> Loop:
    """Of loops that share the work, the main one."""
    most = max(map(amount, sharing))
    unrolled = [loop for loop in sharing if 2 * amount(loop) > most] or sharing
    return min(unrolled, key=lambda loop: loop.total / max(amount(loop), 1))


def _natural(graph: Graph) -> dict[int, int]:
    """First block and all blocks (as bits) of each loop."""
    dominators = graph.dominators()
    found: dict[int, int] = {}
    for block, following in enumerate(graph.after):
        for header in following:
            if dominators[block] >> header & 1:
                found[header] = found.get(header, 0) | _body(graph, header, block)
    return found


def _body(graph: Graph, header: int, last: int) -> int:
    body, todo = 1 << header, [last]
    while todo:
        block = todo.pop()
        if not body >> block & 1:
            body |= 1 << block
            todo += graph.before[block]
    return body


def _loop(graph: Graph, header: int, blocks: int) -> Loop:
    inside = [block for block in range(len(graph.blocks)) if blocks >> block & 1]
    code = [one for block in inside for one in graph.blocks[block] if one.base != "NOP"]
    code.sort(key=lambda one: one.address)
    return Loop(
        graph.blocks[header][0].address,
        blocks,
        tuple(code),
        _most_stored(graph, inside, "STG"),
        _most_stored(graph, inside, "STS"),
    )


def _most_stored(graph: Graph, inside: list[int], store: str) -> int:
    """Bytes on the way through the blocks that stores most: two branches for one step are one step."""
    most: dict[int, int] = {}
    for block in reversed(inside):
        behind = (most[to] for to in graph.after[block] if to > block and to in most)
        most[block] = _stored(graph.blocks[block], store) + max(behind, default=0)
    return max(most.values())


def _stored(block: Iterable[Instruction], store: str) -> int:
    return sum(_width(one) for one in block if one.base == store)


def _width(instruction: Instruction) -> int:
    """Bytes that a load or a store moves."""
    widths = {"8": 1, "U8": 1, "S8": 1, "16": 2, "U16": 2, "S16": 2, "64": 8, "128": 16}
    return next((widths[part] for part in instruction.opcode.split(".")[1:] if part in widths), 4)
