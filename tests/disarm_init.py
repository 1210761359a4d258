"""Run by a hostile job on x86-64: has process 1 of its sandbox forget that it is to die with the worker.

They have the same user, so the job may trace it: it stops it in the system call that it waits in, lets it make another
one, prctl(PR_SET_PDEATHSIG, 0), and has it wait again. Numbers are from the kernel's ptrace.h and unistd_64.h.
"""

import ctypes
import os

SEIZE, INTERRUPT, GETREGS, SETREGS, SINGLESTEP, DETACH = 0x4206, 0x4207, 12, 13, 9, 17
WAIT_ALL = 0x40000000
SYSCALL_SIZE = 2  # bytes of the instruction
PRCTL, WAIT4, PR_SET_PDEATHSIG = 157, 61, 1
NAMES = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs gs ds es fs_ gs_"


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in NAMES.split()]


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def trace(request: int, registers: Registers | None = None) -> None:
    if libc.ptrace(request, 1, None, ctypes.byref(registers) if registers else None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


trace(SEIZE)
trace(INTERRUPT)
os.waitpid(1, WAIT_ALL)
waiting = Registers()
trace(GETREGS, waiting)
call = Registers.from_buffer_copy(waiting)
call.rip -= SYSCALL_SIZE
call.rax, call.rdi, call.rsi, call.orig_rax = PRCTL, PR_SET_PDEATHSIG, 0, 2**64 - 1
trace(SETREGS, call)
trace(SINGLESTEP)
os.waitpid(1, WAIT_ALL)
trace(GETREGS, call)
assert call.rax == 0, call.rax
waiting.rip -= SYSCALL_SIZE
waiting.rax, waiting.orig_rax = WAIT4, 2**64 - 1
trace(SETREGS, waiting)
trace(DETACH)
