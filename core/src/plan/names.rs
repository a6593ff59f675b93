//! Names of the ops in graphs of the C++ system, and the order in which weights are sent to workers.

#![allow(missing_docs)] // the names are their own documentation

pub const EMBEDDING: &str = "embedding";
pub const CAST_X: &str = "block_cast_x";
pub const MERGE_ADD: &str = "block_merge_add";
pub const NORM_PRE_0: &str = "block_norm_pre_0";
pub const NORM_0: &str = "block_norm_0";
pub const CAST_Y: &str = "block_cast_y";
pub const MATMUL_Q: &str = "block_matmul_q";
pub const MATMUL_K: &str = "block_matmul_k";
pub const MATMUL_V: &str = "block_matmul_v";
pub const NORM_PRE_Q: &str = "block_norm_pre_q";
pub const NORM_Q: &str = "block_norm_q";
pub const NORM_PRE_K: &str = "block_norm_pre_k";
pub const NORM_K: &str = "block_norm_k";
pub const ROPE_Q: &str = "block_rope_q";
pub const ROPE_K: &str = "block_rope_k";
pub const SHIFT_K: &str = "block_shift_k";
pub const SHIFT_V: &str = "block_shift_v";
pub const ATTENTION: &str = "block_multihead_att";
pub const CAST_Y2: &str = "block_cast_y2";
pub const MATMUL_WO: &str = "block_matmul_wo";
pub const CAST_D: &str = "block_cast_d";
pub const MERGE_ADD2: &str = "block_merge_add2";
pub const NORM_PRE_1: &str = "block_norm_pre_1";
pub const NORM_1: &str = "block_norm_1";
pub const CAST_Y3: &str = "block_cast_y3";
pub const MATMUL_W1: &str = "block_matmul_w1";
pub const MATMUL_W2: &str = "block_matmul_w2";
pub const MATMUL_W3: &str = "block_matmul_w3";
pub const ACT: &str = "block_act";
pub const MUL: &str = "block_mul";
pub const CAST_D2: &str = "block_cast_d2";
pub const CAST_D3: &str = "block_cast_d3";
pub const MOE_Y_REPEAT: &str = "block_moe_y_repeat";
pub const MOE_GATE: &str = "block_moe_gate";
pub const MOE_SOFTMAX: &str = "block_moe_softmax";
pub const MOE_GATE2: &str = "block_moe_gate2";
pub const MOE_SCALE: &str = "block_moe_scale";
pub const MOE_MERGE_SUM: &str = "block_moe_merge_sum";
pub const FINAL_MERGE_ADD: &str = "final_merge_add";
pub const FINAL_NORM_PRE: &str = "final_norm_pre";
pub const FINAL_NORM: &str = "final_norm";
pub const FINAL_CAST_Y: &str = "final_cast_y";
pub const FINAL_MATMUL: &str = "final_matmul_logits";
pub const FINAL_CAST: &str = "final_cast_logits";

/// Weights of one layer in the order in which a root sends them; groups with several names go expert by expert.
pub const LAYER_WEIGHTS: [&[&str]; 10] = [
    &[MATMUL_Q],
    &[MATMUL_K],
    &[MATMUL_V],
    &[MATMUL_WO],
    &[MOE_GATE],
    &[MATMUL_W1, MATMUL_W2, MATMUL_W3],
    &[NORM_Q],
    &[NORM_K],
    &[NORM_0],
    &[NORM_1],
];

/// Weights that follow the layers, in the order in which a root sends them.
pub const FINAL_WEIGHTS: [&str; 2] = [FINAL_NORM, FINAL_MATMUL];
