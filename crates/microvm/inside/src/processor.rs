//! What this processor can do, so that code which was compiled for another is refused.

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// State of AVX and AVX-512 that the guest's host lets it use.
const AVX_STATE: u64 = 0x6;
const AVX512_STATE: u64 = 0xe6;

/// Whether the processor has `feature`, by the names of the Rust standard library; none where it is
/// not known here.
pub fn has(feature: &str) -> Option<bool> {
    let (one, seven) = (__cpuid(1), __cpuid_count(7, 0));
    let extended = __cpuid(0x8000_0001);
    let bit = |word: u32, bit: u32| word >> bit & 1 != 0;
    let saved = || {
        // SAFETY: the host turns XGETBV on for every guest that has XSAVE.
        bit(one.ecx, 27).then(|| unsafe { state() }).unwrap_or(0)
    };
    let avx = |has: bool| has && saved() & AVX_STATE == AVX_STATE;
    let avx512 = |has: bool| has && saved() & AVX512_STATE == AVX512_STATE;
    Some(match feature {
        "sse3" => bit(one.ecx, 0),
        "ssse3" => bit(one.ecx, 9),
        "cmpxchg16b" => bit(one.ecx, 13),
        "sse4.1" => bit(one.ecx, 19),
        "sse4.2" => bit(one.ecx, 20),
        "popcnt" => bit(one.ecx, 23),
        "lzcnt" => bit(extended.ecx, 5),
        "bmi1" => bit(seven.ebx, 3),
        "bmi2" => bit(seven.ebx, 8),
        "avx" => avx(bit(one.ecx, 28)),
        "fma" => avx(bit(one.ecx, 12)),
        "avx2" => avx(bit(seven.ebx, 5)),
        "avxvnni" => avx(bit(__cpuid_count(7, 1).eax, 4)),
        "avx512f" => avx512(bit(seven.ebx, 16)),
        "avx512dq" => avx512(bit(seven.ebx, 17)),
        "avx512vl" => avx512(bit(seven.ebx, 31)),
        "avx512vbmi" => avx512(bit(seven.ecx, 1)),
        "avx512vnni" => avx512(bit(seven.ecx, 11)),
        "avx512bitalg" => avx512(bit(seven.ecx, 12)),
        _ => return None,
    })
}

#[target_feature(enable = "xsave")]
unsafe fn state() -> u64 {
    // SAFETY: the caller has seen that the processor has it; register 0 is always there.
    unsafe { _xgetbv(0) }
}
