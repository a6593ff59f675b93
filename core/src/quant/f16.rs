//! IEEE binary16 to and from binary32, in integer arithmetic: the same bits on every machine.

/// Widens a binary16 bit pattern. Exact; a NaN keeps its payload and becomes quiet.
pub const fn f16_to_f32(half: u16) -> f32 {
    let sign = (half as u32 & 0x8000) << 16;
    let exponent = (half as u32 >> 10) & 0x1f;
    let mantissa = half as u32 & 0x3ff;
    let bits = match exponent {
        0 if mantissa == 0 => 0,
        0 => {
            // Subnormal: value = mantissa * 2^-24; shift the leading one into place.
            let shift = mantissa.leading_zeros() - 21;
            ((113 - shift) << 23) | ((mantissa << (13 + shift)) & 0x007f_ffff)
        }
        0x1f if mantissa == 0 => 0x7f80_0000,
        0x1f => 0x7fc0_0000 | (mantissa << 13),
        _ => ((exponent + 112) << 23) | (mantissa << 13),
    };
    f32::from_bits(sign | bits)
}

/// Rounds to binary16, nearest with ties to even; overflow gives infinity, a NaN stays a (quiet) NaN.
pub const fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | ((magnitude >> 13) & 0x3ff) as u16;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00; // 65536 and more
    }
    if magnitude < 0x3300_0000 {
        return sign; // below 2^-25, half of the smallest subnormal
    }
    let exponent = magnitude >> 23;
    // `rest` is the part below the last kept bit, scaled so that `half` is exactly one half of that bit.
    let (kept, rest, half) = if exponent >= 113 {
        ((magnitude - (112 << 23)) >> 13, magnitude & 0x1fff, 0x1000)
    } else {
        let mantissa = (magnitude & 0x007f_ffff) | 0x0080_0000;
        let shift = 126 - exponent;
        (mantissa >> shift, mantissa & ((1 << shift) - 1), 1 << (shift - 1))
    };
    let round_up = rest > half || (rest == half && kept & 1 == 1);
    sign | (kept + round_up as u32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_round_trip() {
        for half in 0..=u16::MAX {
            let wide = f16_to_f32(half);
            let back = f32_to_f16(wide);
            if wide.is_nan() {
                assert_eq!(back, half | 0x0200, "{half:#06x}");
            } else {
                assert_eq!(back, half, "{half:#06x}");
            }
        }
    }

    #[test]
    fn values_match_the_definition() {
        assert_eq!(f16_to_f32(0x3c00), 1.0);
        assert_eq!(f16_to_f32(0xc000), -2.0);
        assert_eq!(f16_to_f32(0x0001), 2f32.powi(-24));
        assert_eq!(f16_to_f32(0x03ff), 1023.0 * 2f32.powi(-24));
        assert_eq!(f16_to_f32(0x7bff), 65504.0);
        assert_eq!(f16_to_f32(0xfc00), f32::NEG_INFINITY);
    }

    #[test]
    fn midpoints_round_to_even_and_their_neighbours_to_the_nearest() {
        for half in 0..0x7bffu16 {
            let (low, high) = (f16_to_f32(half), f16_to_f32(half + 1));
            let middle = f32::midpoint(low, high);
            let even = if half & 1 == 0 { half } else { half + 1 };
            assert_eq!(f32_to_f16(middle), even, "{half:#06x}");
            assert_eq!(f32_to_f16(middle.next_down()), half, "{half:#06x}");
            assert_eq!(f32_to_f16(middle.next_up()), half + 1, "{half:#06x}");
        }
        assert_eq!(f32_to_f16(65519.996), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16(f32::MAX), 0x7c00);
        assert_eq!(f32_to_f16(-1e-10), 0x8000);
    }
}
