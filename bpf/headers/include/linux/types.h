#pragma once
typedef unsigned char __u8, u8;
typedef unsigned short __u16, u16, __be16, __le16, __sum16, umode_t;
typedef unsigned int __u32, u32, __be32, __le32, __wsum, gfp_t;
typedef unsigned long long __u64, u64, __be64, __le64;
typedef signed char __s8, s8;
typedef short __s16, s16;
typedef int __s32, s32, pid_t;
typedef long long __s64, s64, loff_t;
typedef unsigned long size_t, uintptr_t;
typedef long ssize_t;
typedef _Bool bool;
enum { false = 0, true = 1 };
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define __aligned_be64 __be64 __attribute__((aligned(8)))
#define __aligned_le64 __le64 __attribute__((aligned(8)))
