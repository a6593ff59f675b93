//! Shapes by name: those of published models, and tiny ones that exercise every branch of the graph.

use dair_core::format::model::EMITTED_BYTES;
use dair_core::format::{Arch, Header, RopeKind, RopeScaling};
use dair_core::quant::DType;

/// A named shape.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// As users write it.
    pub name: &'static str,
    /// Its dimensions, with Q40 weights; set `weights` for another type.
    pub header: Header,
}

/// The header of [`PRESETS`] with this name.
pub fn preset(name: &str) -> Option<Header> {
    PRESETS.iter().find(|preset| preset.name == name).map(|preset| preset.header)
}

const NO_SCALING: RopeScaling =
    RopeScaling { factor: 1.0, low_freq_factor: 0.0, high_freq_factor: 0.0, orig_seq_len: 0 };

/// What most of the shapes share.
const BASE: Header = Header {
    version: 0,
    arch: Arch::Llama,
    dim: 0,
    hidden_dim: 0,
    n_layers: 0,
    n_heads: 0,
    n_kv_heads: 0,
    head_dim: 0,
    n_experts: 0,
    n_active_experts: 0,
    moe_hidden_dim: 0,
    vocab_size: 0,
    seq_len: 0,
    hidden_act: 1,
    rope: RopeKind::Llama,
    rope_theta: 10_000.0,
    rope_scaling: NO_SCALING,
    weights: DType::Q40,
    norm_epsilon: 1e-5,
    header_bytes: EMITTED_BYTES as u32,
};

const LLAMA31: Header = Header {
    seq_len: 131_072,
    rope: RopeKind::Llama31,
    rope_scaling: RopeScaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 8192 },
    ..BASE
};

const QWEN3: Header = Header { arch: Arch::Qwen3, rope: RopeKind::Falcon, rope_theta: 1e6, norm_epsilon: 1e-6, ..BASE };

/// Published dimensions as in the models' `config.json`. The tiny ones can be cut for 2 nodes, most of them for 4,
/// with every type of weights; all but one have `head_dim * n_heads` ≠ `dim`, and their GQA groups are 1 to 4.
pub const PRESETS: [Preset; 13] = [
    Preset {
        name: "tiny-llama",
        header: Header {
            dim: 64,
            hidden_dim: 128,
            n_layers: 3,
            n_heads: 8,
            n_kv_heads: 4,
            head_dim: 16,
            vocab_size: 288,
            seq_len: 128,
            ..BASE
        },
    },
    Preset {
        name: "tiny-llama31",
        header: Header {
            dim: 192,
            hidden_dim: 320,
            n_layers: 2,
            n_heads: 6,
            n_kv_heads: 2,
            head_dim: 32,
            vocab_size: 300,
            seq_len: 160,
            rope: RopeKind::Llama31,
            rope_theta: 500_000.0,
            // Stretched, blended and untouched frequencies within the short context.
            rope_scaling: RopeScaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 64 },
            ..BASE
        },
    },
    Preset {
        name: "tiny-qwen3",
        header: Header {
            dim: 64,
            hidden_dim: 256,
            n_layers: 2,
            n_heads: 4,
            n_kv_heads: 4,
            head_dim: 32,
            vocab_size: 320,
            seq_len: 128,
            ..QWEN3
        },
    },
    Preset {
        name: "tiny-qwen3-moe",
        header: Header {
            arch: Arch::Qwen3Moe,
            dim: 96,
            hidden_dim: 256,
            n_layers: 2,
            n_heads: 8,
            n_kv_heads: 2,
            head_dim: 16,
            n_experts: 6,
            n_active_experts: 2,
            moe_hidden_dim: 64,
            vocab_size: 288,
            seq_len: 128,
            ..QWEN3
        },
    },
    Preset {
        name: "smollm2-135m",
        header: Header {
            dim: 576,
            hidden_dim: 1536,
            n_layers: 30,
            n_heads: 9,
            n_kv_heads: 3,
            head_dim: 64,
            vocab_size: 49_152,
            seq_len: 8192,
            rope_theta: 100_000.0,
            ..BASE
        },
    },
    Preset {
        name: "llama2-7b",
        header: Header {
            dim: 4096,
            hidden_dim: 11_008,
            n_layers: 32,
            n_heads: 32,
            n_kv_heads: 32,
            head_dim: 128,
            vocab_size: 32_000,
            seq_len: 4096,
            ..BASE
        },
    },
    Preset {
        name: "llama2-70b",
        header: Header {
            dim: 8192,
            hidden_dim: 28_672,
            n_layers: 80,
            n_heads: 64,
            n_kv_heads: 8,
            head_dim: 128,
            vocab_size: 32_000,
            seq_len: 4096,
            ..BASE
        },
    },
    Preset {
        name: "llama3.2-1b",
        header: Header {
            dim: 2048,
            hidden_dim: 8192,
            n_layers: 16,
            n_heads: 32,
            n_kv_heads: 8,
            head_dim: 64,
            vocab_size: 128_256,
            seq_len: 131_072,
            rope: RopeKind::Llama31,
            rope_theta: 500_000.0,
            rope_scaling: RopeScaling { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, orig_seq_len: 8192 },
            ..BASE
        },
    },
    Preset {
        name: "llama3-8b",
        header: Header {
            dim: 4096,
            hidden_dim: 14_336,
            n_layers: 32,
            n_heads: 32,
            n_kv_heads: 8,
            head_dim: 128,
            vocab_size: 128_256,
            seq_len: 8192,
            rope_theta: 500_000.0,
            ..BASE
        },
    },
    Preset {
        name: "llama3.3-70b",
        header: Header {
            dim: 8192,
            hidden_dim: 28_672,
            n_layers: 80,
            n_heads: 64,
            n_kv_heads: 8,
            head_dim: 128,
            vocab_size: 128_256,
            rope_theta: 5e5,
            ..LLAMA31
        },
    },
    Preset {
        name: "llama3.1-405b",
        header: Header {
            dim: 16_384,
            hidden_dim: 53_248,
            n_layers: 126,
            n_heads: 128,
            n_kv_heads: 8,
            head_dim: 128,
            vocab_size: 128_256,
            rope_theta: 5e5,
            ..LLAMA31
        },
    },
    Preset {
        name: "qwen3-0.6b",
        header: Header {
            dim: 1024,
            hidden_dim: 3072,
            n_layers: 28,
            n_heads: 16,
            n_kv_heads: 8,
            head_dim: 128,
            vocab_size: 151_936,
            seq_len: 40_960,
            ..QWEN3
        },
    },
    Preset {
        name: "qwen3-30b-a3b",
        header: Header {
            arch: Arch::Qwen3Moe,
            dim: 2048,
            hidden_dim: 6144,
            n_layers: 48,
            n_heads: 32,
            n_kv_heads: 4,
            head_dim: 128,
            n_experts: 128,
            n_active_experts: 8,
            moe_hidden_dim: 768,
            vocab_size: 151_936,
            seq_len: 40_960,
            ..QWEN3
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use dair_core::format::Layout;
    use dair_core::plan::Cut;

    #[test]
    fn every_shape_is_a_valid_header_that_survives_its_file() {
        for Preset { name, header } in PRESETS {
            for weights in DType::ALL {
                let header = Header { weights, ..header };
                assert_eq!(header.check(), Ok(()), "{name} {weights}");
                assert_eq!(Header::parse(&header.emit()), Ok(header), "{name} {weights}");
            }
        }
    }

    #[test]
    fn sizes_are_those_of_the_published_models() {
        // Parameters: the embedding counts once, as where it is tied to the output.
        let parameters = |name| {
            let layout = Layout::new(&preset(name).unwrap()).unwrap();
            let mut sum = 0;
            layout.visit(|id, tensor| {
                if id != dair_core::format::TensorId::Wcls {
                    sum += u64::from(tensor.rows) * u64::from(tensor.cols);
                }
            });
            sum
        };
        assert_eq!(parameters("smollm2-135m"), 134_515_008);
        assert_eq!(parameters("llama3.2-1b"), 1_235_814_400);
        assert_eq!(parameters("llama3-8b") + 128_256 * 4096, 8_030_261_248);
        assert_eq!(parameters("llama2-7b") + 32_000 * 4096, 6_738_415_616);
        assert_eq!(parameters("llama2-70b") + 32_000 * 8192, 68_976_648_192);
        assert_eq!(parameters("llama3.3-70b") + 128_256 * 8192, 70_553_706_496);
        assert_eq!(parameters("llama3.1-405b") + 128_256 * 16_384, 405_853_388_800);
        assert_eq!(parameters("qwen3-0.6b"), 596_049_920);
        assert_eq!(parameters("qwen3-30b-a3b") + 151_936 * 2048, 30_532_122_624);
    }

    #[test]
    fn tiny_shapes_can_be_cut_for_two_nodes() {
        for Preset { name, header } in PRESETS.iter().filter(|preset| preset.name.starts_with("tiny")) {
            assert_eq!(Cut::dllama(header, 2).check(header), Ok(()), "{name}");
        }
    }
}
