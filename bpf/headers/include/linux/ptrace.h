#pragma once
/* The saved user registers, as the kernel lays them out; the only place that knows the architecture's names. */
#if defined(__x86_64__) || defined(__TARGET_ARCH_x86)
struct pt_regs {
    unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(__aarch64__) || defined(__TARGET_ARCH_arm64)
struct pt_regs {
    unsigned long regs[31], sp, pc, pstate, orig_x0;
};
#else
#error "unknown architecture"
#endif
