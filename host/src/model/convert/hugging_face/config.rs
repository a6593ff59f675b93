//! `config.json` as the header of a `.m` file.

use super::json::Json;
use crate::model::convert::error::ConvertError;
use dair_core::format::{Arch, Header, RopeKind, RopeScaling};
use dair_core::quant::DType;
use serde_json::Value;

/// What transformers 5 calls `num_experts`.
const EXPERTS_OF_TRANSFORMERS_5: &str = "num_local_experts";

/// The header, with F32 weights until the output's type is chosen, and notes for the user.
pub fn header(config: &Json, vocab_size: u32) -> Result<(Header, Vec<String>), ConvertError> {
    let arch = match config.str("model_type")?.ok_or_else(|| config.missing("model_type"))? {
        "llama" | "mistral" => Arch::Llama,
        "qwen3" => Arch::Qwen3,
        "qwen3_moe" => Arch::Qwen3Moe,
        other => {
            return Err(config.refused(
                "model_type",
                format!("{other:?}"),
                "allowed: llama, mistral, qwen3, qwen3_moe",
            ));
        }
    };
    check_unsupported(config)?;
    let moe = arch == Arch::Qwen3Moe;
    let (dim, n_heads) = (config.required_u32("hidden_size")?, config.required_u32("num_attention_heads")?);
    let (rope_theta, rope_scaling) = rope(config, arch)?;
    let mut notes = Vec::new();
    let header = Header {
        version: 0,
        arch,
        dim,
        hidden_dim: config.required_u32("intermediate_size")?,
        n_layers: config.required_u32("num_hidden_layers")?,
        n_heads,
        n_kv_heads: config.u32("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim: match config.u32("head_dim")? {
            Some(head_dim) => head_dim,
            // There, the default does not follow from the other sizes.
            None if arch == Arch::Qwen3 => return Err(config.missing("head_dim")),
            None => dim.checked_div(n_heads).unwrap_or(0),
        },
        n_experts: match config.u32_named("num_experts", EXPERTS_OF_TRANSFORMERS_5)? {
            Some(n_experts) if moe => n_experts,
            None if moe => return Err(config.missing("num_experts")),
            _ => 0,
        },
        n_active_experts: if moe { config.required_u32("num_experts_per_tok")? } else { 0 },
        moe_hidden_dim: if moe { config.required_u32("moe_intermediate_size")? } else { 0 },
        vocab_size,
        seq_len: seq_len(config, &mut notes)?,
        hidden_act: 1,
        rope: match arch {
            Arch::Llama if rope_scaling.factor != 1.0 => RopeKind::Llama31,
            Arch::Llama => RopeKind::Llama,
            Arch::Qwen3 | Arch::Qwen3Moe => RopeKind::Falcon,
        },
        rope_theta,
        rope_scaling,
        weights: DType::F32,
        norm_epsilon: norm_epsilon(config)?,
        header_bytes: 0,
    };
    Ok((header, notes))
}

/// What changes the result and has no place in a `.m` file.
fn check_unsupported(config: &Json) -> Result<(), ConvertError> {
    if let Some(found) = config.value("quantization_config") {
        return Err(config.refused(
            "quantization_config",
            found,
            "allowed: F32, F16 or BF16 models; or convert a GGUF of it",
        ));
    }
    if let Some(found) = config.str("hidden_act")?.filter(|act| *act != "silu") {
        return Err(config.refused("hidden_act", format!("{found:?}"), "allowed: silu"));
    }
    check_rotates_whole_heads(config)?;
    if config.str("model_type")? == Some("qwen3_moe") {
        if config.bool("norm_topk_prob")? != Some(true) {
            return Err(config.refused(
                "norm_topk_prob",
                "not true",
                "only experts with renormalised weights are supported",
            ));
        }
        if let Some(found) = config.u32("decoder_sparse_step")?.filter(|step| *step != 1) {
            return Err(config.refused("decoder_sparse_step", found, "allowed: 1 (experts in every layer)"));
        }
        match config.value("mlp_only_layers") {
            None => {}
            Some(Value::Array(layers)) if layers.is_empty() => {}
            Some(found) => {
                return Err(config.refused("mlp_only_layers", found, "allowed: [] (experts in every layer)"));
            }
        }
    }
    Ok(())
}

fn check_rotates_whole_heads(settings: &Json) -> Result<(), ConvertError> {
    match settings.float("partial_rotary_factor")?.filter(|factor| *factor != 1.0) {
        Some(found) => Err(settings.refused("partial_rotary_factor", found, "allowed: 1")),
        None => Ok(()),
    }
}

/// The context length; a sliding attention window ends it, because up to there it makes no difference.
fn seq_len(config: &Json, notes: &mut Vec<String>) -> Result<u32, ConvertError> {
    let seq_len = config.required_u32("max_position_embeddings")?;
    let in_use = config.bool("use_sliding_window")?.unwrap_or(true);
    match config.u32("sliding_window")?.filter(|window| in_use && *window < seq_len) {
        None => Ok(seq_len),
        Some(window) => {
            notes.push(format!(
                "context shortened from {seq_len} to {window} positions: beyond them the model attends to a sliding window, \
                 which a .m file can't express"
            ));
            Ok(window)
        }
    }
}

fn norm_epsilon(config: &Json) -> Result<f32, ConvertError> {
    let found = config.float("rms_norm_eps")?.ok_or_else(|| config.missing("rms_norm_eps"))?;
    match found as f32 {
        epsilon @ (1e-5 | 1e-6) => Ok(epsilon),
        _ => Err(config.refused("rms_norm_eps", found, "allowed: 1e-5, 1e-6")),
    }
}

/// Base and scaling of RoPE. Files of transformers 5 keep both in `rope_parameters`.
fn rope(config: &Json, arch: Arch) -> Result<(f32, RopeScaling), ConvertError> {
    let parameters = config.object("rope_parameters")?;
    if let Some(parameters) = &parameters {
        check_rotates_whole_heads(parameters)?;
        // Parameters for each type of layer lie one level deeper.
        if let Some(kind) = parameters.keys().find(|key| parameters.value(key).is_some_and(Value::is_object)) {
            return Err(parameters.refused(kind, "an object", "all layers must have the same parameters"));
        }
        if let Some(scaling) = config.object("rope_scaling")?
            && let Some(key) = scaling.keys().find(|key| scaling.value(key) != parameters.value(key))
        {
            let found = scaling.value(key).unwrap_or(&Value::Null);
            return Err(scaling.refused(key, found, "rope_parameters says otherwise; they must agree"));
        }
    }
    let base = match &parameters {
        Some(parameters) if parameters.value("rope_theta").is_some() => whole(parameters, "rope_theta")?,
        _ if config.value("rope_theta").is_some() => whole(config, "rope_theta")?,
        _ => 10_000.0,
    };
    let Some(scaling) = parameters.map_or_else(|| config.object("rope_scaling"), |parameters| Ok(Some(parameters)))?
    else {
        return Ok((base, RopeScaling::default()));
    };
    let key = if scaling.value("rope_type").is_some() { "rope_type" } else { "type" };
    match scaling.str(key)? {
        None | Some("default") => Ok((base, RopeScaling::default())),
        Some("llama3") if arch == Arch::Llama => Ok((
            base,
            RopeScaling {
                factor: whole(&scaling, "factor")?,
                low_freq_factor: whole(&scaling, "low_freq_factor")?,
                high_freq_factor: whole(&scaling, "high_freq_factor")?,
                orig_seq_len: scaling.required_u32("original_max_position_embeddings")?,
            },
        )),
        Some(other) => {
            let allowed = if arch == Arch::Llama { "allowed: default, llama3" } else { "allowed: default" };
            Err(scaling.refused(key, format!("{other:?}"), allowed))
        }
    }
}

/// A number that the header stores as an integer.
fn whole(json: &Json, key: &str) -> Result<f32, ConvertError> {
    let found = json.float(key)?.ok_or_else(|| json.missing(key))?;
    // Above 2^24 an F32 might not be the integer that was written.
    if found.fract() == 0.0 && (1.0..=f64::from(i32::MAX)).contains(&found) && f64::from(found as f32) == found {
        Ok(found as f32)
    } else {
        Err(json.refused(key, found, "allowed: whole numbers from 1 to 2147483647 that an F32 holds exactly"))
    }
}
