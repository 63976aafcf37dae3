"""Fused multiply-adds that nobody explains, in machine code and in PTX.

A product and a sum round apart everywhere, so that all backends agree to the bit. Fused operations do occur
within the correctly rounded divisions, and in the one exception that our sources make: the reciprocal by
rcp.approx and one Newton step. Both are recognised by what they compute, operand by operand. That a result
comes from a reciprocal explains nothing, as it may well be contracted with what follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from _sass import Function, Instruction
from _sass_loops import Graph

# A sign and what it belongs to. That is a tuple of a name and parts:
#     ("rcp", q, n)             1/q: n = 0 approximate, and better by a Newton step for each more
#     ("rest", q, n)            1 - q * rcp
#     ("quotient", a, q)        a/q
#     ("remainder", a, q)       a - q * quotient
# and of anything else where it was defined.
Value = tuple[int, tuple[Any, ...]]

_FUSED = {"FFMA", "FFMA32I", "FFMA2", "DFMA", "HFMA2"}
_OPERAND = re.compile(r"(-?)(\|?)(U?R\d+|[^|]+)\|?")
# PTX: of floating point, or an approximation. Integer mad of addresses is another thing.
_PTX_FUSED = re.compile(r"\bfma\.|\bmad\.(?:r[nzmp]\.)?(?:ftz\.)?f\d\d")
_PTX_LOOSE = re.compile(r"\.approx|\.ftz|\.full")
_PTX_STATEMENT = re.compile(r"\s*(?:[\w$]+:\s*)*(?:@!?%p\d+\s+)?([a-z][\w.]*)\s+(.*)", re.DOTALL)
_PTX_ONE = "0f3F800000"


@dataclass
class _State:
    """What the registers hold at a place in the code, as far as its block and those before it tell."""

    begin: int
    registers: dict[str, tuple[Value, str]] = field(default_factory=dict)

    def read(self, operand: str, predicate: str, wide: bool) -> Value:
        match = _OPERAND.fullmatch(operand)
        if match is None:
            return 1, ("text", operand)
        minus, absolute, name = match.groups()
        if not re.fullmatch(r"U?R\d+", name):
            sign, inner = 1, ("text", name)
        else:
            # The upper half of a pair tells: of it alone the approximate reciprocal is made.
            sign, inner = self.register(_next(name) if wide else name, predicate)
        if absolute:
            sign, inner = 1, ("absolute", inner)
        return -sign if minus else sign, inner

    def register(self, name: str, predicate: str) -> Value:
        value, written_if = self.registers.get(name, ((1, ("entry", self.begin, name)), ""))
        # What is written on a condition is sure only under the same.
        return value if written_if in ("", predicate) else (1, ("either", value, written_if))

    def write(self, name: str, values: list[Value], predicate: str) -> None:
        for value in values:
            self.registers[name] = (value, predicate)
            name = _next(name)


def _next(register: str) -> str:
    prefix = register.rstrip("0123456789")
    return f"{prefix}{int(register[len(prefix) :]) + 1}"


def contractions(function: Function) -> list[str]:
    """The fused multiply-adds of a function that are no part of a division.

    Routines that it calls are left out: as all of ours is inlined, they are the compiler's own, for the slow
    paths of divisions.
    """
    graph = Graph(function)
    ends: list[_State] = []
    found = []
    for block, code in enumerate(graph.blocks):
        state = _State(code[0].address)
        if len(graph.before[block]) == 1 and graph.before[block][0] < block:
            earlier = ends[graph.before[block][0]]
            state = _State(earlier.begin, dict(earlier.registers))
        found += [str(one) for one in code if not _follow(state, one)]
        ends.append(state)
    return sorted(found)


def _follow(state: _State, one: Instruction) -> bool:
    """Carry out an instruction; return whether it is explained."""
    if not one.operands or not re.fullmatch(r"U?R\d+", one.operands[0]):
        return True
    wide = one.base[0] == "D" and one.base != "DEPBAR"
    inputs = [state.read(operand, one.predicate, wide) for operand in one.operands[1:]]
    value, explained = _evaluate(one, inputs, wide)
    size = 4 if "128" in one.opcode else 2 if wide or re.search(r"64\b|WIDE|CS2R", one.opcode) else 1
    unknown: list[Value] = [(1, ("from", one.address, part)) for part in range(size)]
    state.write(one.operands[0], unknown if value is None else [value] * size, one.predicate)
    return explained


def _evaluate(one: Instruction, inputs: list[Value], wide: bool) -> tuple[Value | None, bool]:
    """The value that an instruction gives, None if not one of those above; and whether it is explained."""
    if one.opcode in ("MOV", "UMOV"):
        return inputs[0], True
    if one.opcode == "IMAD.MOV.U32":
        return inputs[2], True
    if one.opcode in ("MUFU.RCP", "MUFU.RCP64H"):
        return (1, ("rcp", inputs[0], 0)), True
    if one.base == "FADD" and one.operands[-1] == "-RZ":
        return inputs[0], True
    if one.base == "DMUL":
        return _quotient(inputs), True
    if one.base not in _FUSED:
        return None, True
    if any(operand in ("RZ", "-RZ") for operand in one.operands[1:]):
        # Nothing is added, or nothing multiplied: it rounds once, or is a constant's way into a register.
        return (_quotient(inputs) if one.operands[-1] == "RZ" else None), True
    if one.base == "HFMA2":
        return None, False
    value = _division(inputs, wide) if one.opcode in ("FFMA", "DFMA") else None
    # A factor of one leaves a sum.
    ones = any(text == ("text", "1") for _, text in inputs[:2])
    return value, value is not None or ones


def _quotient(inputs: list[Value]) -> Value | None:
    """a * rcp, once the reciprocal is good."""
    for (sign, inner), factor in (inputs[:2], inputs[1::-1]):
        if sign == 1 and inner[0] == "rcp" and inner[2]:
            return 1, ("quotient", factor, inner[1])
    return None


def _division(inputs: list[Value], wide: bool) -> Value | None:
    """The step of a division that a fused multiply-add is: first * second + added."""
    added_sign, added = inputs[2]
    for (sign, inner), (other_sign, other) in (inputs[:2], inputs[1::-1]):
        name = inner[0]
        if name == "rcp" and inner[2] <= wide and added == ("text", "1"):
            # q * rcp - 1 is the rest too, but for its sign.
            if (sign * other_sign * -added_sign, other) == inner[1]:
                return added_sign, ("rest", inner[1], inner[2])
        elif name == "quotient":
            if (-sign * other_sign, other) == inner[2] and inputs[2] == inner[1]:
                return 1, ("remainder", inner[1], inner[2])
        elif min(sign, other_sign, added_sign) < 1:
            continue
        elif name == "rcp" and other == ("rest", *inner[1:]) and added == inner:
            return 1, ("rcp", inner[1], inner[2] + 1)
        elif name == "rcp" and other[0] == "remainder" and inner[2] and other[2] == inner[1]:
            if added == ("quotient", *other[1:]):
                return 1, added
        elif name == "rest" and wide and other == inner == added:
            # In 64 bits the first step is of third order: the rest and its square.
            return 1, inner
    return None


def ptx_contractions(body: str) -> list[str]:
    """The fused multiply-adds and approximations in the PTX of a kernel that are no part of our reciprocal:

        rcp.approx.ftz.f32  r, q;
        neg.f32             n, q;
        fma.rn.f32          t, n, r, 1;
        fma.rn.f32          h, r, t, r;

    in this order, whatever stands between. An approximation whose two steps do not follow is reported too.
    """
    holds: dict[str, tuple[Any, ...]] = {}
    found: list[str] = []
    unfinished: dict[tuple[Any, ...], str] = {}
    for at, statement in enumerate(re.split(r"[;{}]", re.sub(r"//.*", "", body))):
        match = _PTX_STATEMENT.fullmatch(statement)
        if match is None:
            continue
        opcode, operands = match.group(1), [part.strip() for part in match.group(2).split(",")]
        inputs = [holds.get(name, ("name", name)) for name in operands[1:]]
        value: tuple[Any, ...] = ("from", at)
        text = " ".join(statement.split())
        if opcode == "rcp.approx.ftz.f32":
            value = ("rcp", at, inputs[0])
            unfinished[value] = text
        elif opcode == "neg.f32":
            value = _minus(inputs[0])
        elif opcode == "mov.f32":
            value = inputs[0]
        elif opcode == "fma.rn.f32" and (step := _newton(inputs)) is not None:
            value = step
            if step[0] == "reciprocal":
                unfinished.pop(step[1], None)
        elif _PTX_FUSED.search(opcode) or _PTX_LOOSE.search(opcode):
            found.append(text)
        holds[operands[0]] = value
    return found + list(unfinished.values())


def _minus(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return value[1] if value[0] == "minus" else ("minus", value)


def _newton(inputs: list[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """A step of the reciprocal: what is left, or the better value."""
    first, second, added = inputs
    for one, other in ((first, second), (second, first)):
        if one[0] == "rcp" and other == _minus(one[2]) and added == ("name", _PTX_ONE):
            return "rest", one
        if one[0] == "rcp" and other == ("rest", one) and added == one:
            return "reciprocal", one
    return None
