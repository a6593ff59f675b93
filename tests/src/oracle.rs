//! A forward pass in F64, written from the papers and the file format alone: plain loops, one token at a time.
//!
//! It shares nothing with the engine but [`Header`] and the types of a [`Cut`]: it reads tensors in the order in which they lie in the file, and
//! widens and rounds block types by itself. Rounding of activations and of partial sums can be copied from a run with
//! quantised activations, so that only what is left of F32 arithmetic separates the two.

use dair_core::format::{Arch, Header, RopeKind};
use dair_core::plan::{Cut, Way};
use dair_core::quant::DType;
use std::ops::Range;

/// A row-major matrix.
struct Matrix {
    cols: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.cols..(row + 1) * self.cols]
    }

    /// The product with `x`, of which only `cols` are used.
    fn times(&self, x: &[f64], cols: Range<usize>) -> Vec<f64> {
        assert_eq!(x.len(), self.cols);
        self.values.chunks(self.cols).map(|row| dot(&row[cols.clone()], &x[cols.clone()])).collect()
    }

    fn of(&self, x: &[f64]) -> Vec<f64> {
        self.times(x, 0..self.cols)
    }
}

struct Expert {
    gate: Matrix,
    down: Matrix,
    up: Matrix,
}

struct Layer {
    q: Matrix,
    k: Matrix,
    v: Matrix,
    wo: Matrix,
    router: Option<Matrix>,
    experts: Vec<Expert>,
    q_norm: Vec<f64>,
    k_norm: Vec<f64>,
    norm_0: Vec<f64>,
    norm_1: Vec<f64>,
}

/// All weights of a model, widened.
pub struct Model {
    /// What the file says about itself.
    pub header: Header,
    embedding: Matrix,
    layers: Vec<Layer>,
    final_norm: Vec<f64>,
    wcls: Matrix,
}

impl Model {
    /// Widens every tensor of a `.m` file.
    ///
    /// # Panics
    /// If the file is no model, or longer or shorter than its tensors.
    pub fn read(file: &[u8]) -> Self {
        let header = Header::parse(file).unwrap();
        let mut rest = Tensors { bytes: &file[header.header_bytes as usize..] };
        let [dim, q_dim, kv_dim, ff_dim, head_dim] =
            [header.dim, header.q_dim(), header.kv_dim(), header.ff_dim(), header.head_dim].map(|len| len as usize);
        let (vocab_size, weights) = (header.vocab_size as usize, header.weights);
        let embedding = rest.matrix(DType::F32, vocab_size, dim);
        let layers = (0..header.n_layers).map(|_| {
            let [q, k, v] = [q_dim, kv_dim, kv_dim].map(|rows| rest.matrix(weights, rows, dim));
            let wo = rest.matrix(weights, dim, q_dim);
            let router = (header.n_experts > 0).then(|| rest.matrix(DType::F32, header.n_experts as usize, dim));
            let experts = (0..header.n_experts.max(1)).map(|_| Expert {
                gate: rest.matrix(weights, ff_dim, dim),
                down: rest.matrix(weights, dim, ff_dim),
                up: rest.matrix(weights, ff_dim, dim),
            });
            let experts = experts.collect();
            let mut head_norm =
                || if header.arch == Arch::Llama { Vec::new() } else { rest.values(DType::F32, head_dim) };
            let (q_norm, k_norm) = (head_norm(), head_norm());
            let (norm_0, norm_1) = (rest.values(DType::F32, dim), rest.values(DType::F32, dim));
            Layer { q, k, v, wo, router, experts, q_norm, k_norm, norm_0, norm_1 }
        });
        let layers = layers.collect();
        let final_norm = rest.values(DType::F32, dim);
        let wcls = rest.matrix(weights, vocab_size, dim);
        assert_eq!(rest.bytes.len(), 0, "bytes behind the last tensor");
        Self { header, embedding, layers, final_norm, wcls }
    }
}

/// Tensors that have not been read.
struct Tensors<'f> {
    bytes: &'f [u8],
}

impl Tensors<'_> {
    fn matrix(&mut self, dtype: DType, rows: usize, cols: usize) -> Matrix {
        Matrix { cols, values: self.values(dtype, rows * cols) }
    }

    fn values(&mut self, dtype: DType, len: usize) -> Vec<f64> {
        let (block_len, block_bytes) = match dtype {
            DType::F32 => (1, 4),
            DType::F16 => (1, 2),
            DType::Q40 => (32, 18),
            DType::Q80 => (32, 34),
        };
        assert!(len.is_multiple_of(block_len));
        let (now, later) = self.bytes.split_at(len / block_len * block_bytes);
        self.bytes = later;
        let mut values = Vec::with_capacity(len);
        for block in now.chunks(block_bytes) {
            let scale = || half([block[0], block[1]]);
            match dtype {
                DType::F32 => values.push(f64::from(f32::from_le_bytes([block[0], block[1], block[2], block[3]]))),
                DType::F16 => values.push(scale()),
                DType::Q40 => {
                    values.extend(block[2..].iter().map(|byte| (f64::from(byte % 16) - 8.0) * scale()));
                    values.extend(block[2..].iter().map(|byte| (f64::from(byte / 16) - 8.0) * scale()));
                }
                DType::Q80 => values.extend(block[2..].iter().map(|byte| f64::from(*byte as i8) * scale())),
            }
        }
        values
    }
}

/// A finite binary16 number.
fn half(bytes: [u8; 2]) -> f64 {
    let bits = u16::from_le_bytes(bytes);
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
    let magnitude = if exponent == 0 { fraction * 2f64.powi(-14) } else { (1.0 + fraction) * 2f64.powi(exponent - 15) };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// The nearest binary16 number, ties to even; `x` is positive and in its range.
fn to_half(x: f32) -> f64 {
    // The distance between neighbours: 2^-24 among subnormals, else 2^-10 of the power of two below.
    let exponent = (x.to_bits() >> 23) as i32 - 127;
    let step = 2f64.powi(exponent.max(-14) - 10);
    (f64::from(x) / step).round_ties_even() * step
}

/// Rounds to Q80 blocks of 32: the F32 steps that the format prescribes, scale `max / 127` kept as binary16.
fn round_to_q80(x: &mut [f64]) {
    for block in x.chunks_mut(32) {
        assert_eq!(block.len(), 32);
        let scale = block.iter().fold(0f32, |max, x| max.max((*x as f32).abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for x in block {
            *x = f64::from((*x as f32 * inverse).round_ties_even()) * to_half(scale);
        }
    }
}

/// Rounds `x`, which a norm is to multiply with `factor`, to Q80 blocks of 32 before it does: as [`round_to_q80`], but that
/// the scale becomes binary16 with the factor.
fn round_before_norm(x: &mut [f64], factor: f64) {
    for block in x.chunks_mut(32) {
        assert_eq!(block.len(), 32);
        let scale = block.iter().fold(0f32, |max, x| max.max((*x as f32).abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        for x in block {
            *x = f64::from((*x as f32 * inverse).round_ties_even()) * to_half((f64::from(scale) * factor) as f32);
        }
    }
}

/// What is rounded, and how sums are split.
#[derive(Clone, Copy, Debug)]
pub struct Numerics {
    /// Inputs of products with weights of the model's type are rounded to Q80.
    pub q80_activations: bool,
    /// Norms multiply what has been rounded to Q80, where no gate reads it.
    pub q80_before_norms: bool,
    /// What each node adds to the residual stream is rounded to Q80.
    pub q80_partials: bool,
    /// Equal parts that the columns of the output projections are cut into.
    pub nodes: usize,
}

impl Numerics {
    /// What the nodes of a cut round.
    pub fn of(cut: &Cut) -> Self {
        let is_q80 = |dtype| match dtype {
            DType::F32 => false,
            DType::Q80 => true,
            DType::F16 | DType::Q40 => panic!("{dtype} activations"),
        };
        let q80_activations = is_q80(cut.activation);
        match cut.way {
            Way::Rows { .. } => {
                Self { q80_activations, q80_before_norms: q80_activations, q80_partials: false, nodes: 1 }
            }
            Way::Columns { nodes, exchange } => {
                let (q80_partials, nodes) = (is_q80(exchange), nodes as usize);
                Self { q80_activations, q80_before_norms: false, q80_partials, nodes }
            }
        }
    }
}

/// A mistake made on purpose, to prove that comparisons with the oracle find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Flaw {
    RopeOnTheOtherPairs,
    NoRopeScaling,
    NoRope,
    KvHeadsInterleaved,
    ScoresNotScaled,
    NoQkNorm,
    EpsilonTenfold,
    GeluForSilu,
    GateAndUpSwapped,
    ExpertsNotRenormalised,
    OneExpertLess,
    Norm1ForFinalNorm,
    LayersSwapped,
}

impl Flaw {
    /// Every flaw.
    pub const ALL: [Flaw; 13] = [
        Flaw::RopeOnTheOtherPairs,
        Flaw::NoRopeScaling,
        Flaw::NoRope,
        Flaw::KvHeadsInterleaved,
        Flaw::ScoresNotScaled,
        Flaw::NoQkNorm,
        Flaw::EpsilonTenfold,
        Flaw::GeluForSilu,
        Flaw::GateAndUpSwapped,
        Flaw::ExpertsNotRenormalised,
        Flaw::OneExpertLess,
        Flaw::Norm1ForFinalNorm,
        Flaw::LayersSwapped,
    ];

    /// Whether a model has what this flaw breaks.
    pub fn concerns(self, header: &Header) -> bool {
        match self {
            Flaw::NoRopeScaling => header.rope_scaling.factor != 1.0,
            Flaw::KvHeadsInterleaved => header.n_kv_heads > 1 && header.n_kv_heads < header.n_heads,
            Flaw::NoQkNorm => header.arch != Arch::Llama,
            Flaw::ExpertsNotRenormalised | Flaw::OneExpertLess => header.arch == Arch::Qwen3Moe,
            _ => true,
        }
    }
}

/// A sequence in progress: the weights and what is remembered of earlier tokens.
pub struct Oracle<'m> {
    model: &'m Model,
    numerics: Numerics,
    flaw: Option<Flaw>,
    /// For each layer and position, rotated keys and values.
    cache: Vec<Vec<(Vec<f64>, Vec<f64>)>>,
}

impl<'m> Oracle<'m> {
    /// An empty sequence.
    pub fn new(model: &'m Model, numerics: Numerics) -> Self {
        let cache = model.layers.iter().map(|_| Vec::new()).collect();
        Self { model, numerics, flaw: None, cache }
    }

    /// The same with a mistake.
    pub fn with_flaw(self, flaw: Flaw) -> Self {
        Self { flaw: Some(flaw), ..self }
    }

    /// Logits behind every token of a sequence.
    pub fn run(mut self, tokens: &[u32]) -> Vec<Vec<f64>> {
        tokens.iter().map(|token| self.push(*token)).collect()
    }

    /// Logits behind the next token.
    fn push(&mut self, token: u32) -> Vec<f64> {
        let model = self.model;
        let mut x = model.embedding.row(token as usize).to_vec();
        for index in 0..model.layers.len() {
            let layer = match self.flaw {
                Some(Flaw::LayersSwapped) => &model.layers[model.layers.len() - 1 - index],
                _ => &model.layers[index],
            };
            self.attention(&mut x, layer, index);
            self.feed_forward(&mut x, layer);
        }
        let norm = match self.flaw {
            Some(Flaw::Norm1ForFinalNorm) => &model.layers[0].norm_1,
            _ => &model.final_norm,
        };
        model.wcls.of(&self.normed_input(&x, norm))
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// An activation as products see it.
    fn input(&self, mut x: Vec<f64>) -> Vec<f64> {
        if self.numerics.q80_activations {
            round_to_q80(&mut x);
        }
        x
    }

    /// Adds a projection of `len` columns to the residual stream, node by node: `partial` is what some columns yield.
    fn add_partials(&self, x: &mut [f64], len: usize, partial: impl Fn(Range<usize>) -> Vec<f64>) {
        let nodes = self.numerics.nodes;
        for node in 0..nodes {
            let mut y = partial(node * len / nodes..(node + 1) * len / nodes);
            if self.numerics.q80_partials {
                round_to_q80(&mut y);
            }
            add(x, &y, 1.0);
        }
    }

    /// A normed row as products see it.
    fn normed_input(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        if !self.numerics.q80_before_norms {
            return self.input(self.rms_norm(x, weight));
        }
        let mut y: Vec<_> = x.iter().zip(weight).map(|(x, w)| w * x).collect();
        round_before_norm(&mut y, 1.0 / self.root(x));
        y
    }

    /// `w * x / sqrt(mean(x²) + epsilon)` (Zhang and Sennrich, 2019).
    fn rms_norm(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let root = self.root(x);
        x.iter().zip(weight).map(|(x, w)| w * x / root).collect()
    }

    /// `sqrt(mean(x²) + epsilon)`
    fn root(&self, x: &[f64]) -> f64 {
        // The header's epsilon is a decimal number.
        let epsilon = if self.model.header.norm_epsilon == 1e-5 { 1e-5 } else { 1e-6 };
        let epsilon = if self.has(Flaw::EpsilonTenfold) { 10.0 * epsilon } else { epsilon };
        (dot(x, x) / x.len() as f64 + epsilon).sqrt()
    }

    fn attention(&mut self, x: &mut [f64], layer: &Layer, index: usize) {
        let header = self.model.header;
        let (head_dim, n_heads) = (header.head_dim as usize, header.n_heads as usize);
        let y = self.normed_input(x, &layer.norm_0);
        let (mut q, mut k, v) = (layer.q.of(&y), layer.k.of(&y), layer.v.of(&y));
        let position = self.cache[index].len();
        for (heads, norm) in [(&mut q, &layer.q_norm), (&mut k, &layer.k_norm)] {
            for head in heads.chunks_mut(head_dim) {
                if header.arch != Arch::Llama && !self.has(Flaw::NoQkNorm) {
                    head.copy_from_slice(&self.rms_norm(head, norm));
                }
                self.rope(head, position as f64);
            }
        }
        self.cache[index].push((k, v));
        let group = n_heads / header.n_kv_heads as usize;
        let mut z = Vec::with_capacity(q.len());
        for (head, q) in q.chunks(head_dim).enumerate() {
            let kv_head = if self.has(Flaw::KvHeadsInterleaved) { head % (n_heads / group) } else { head / group };
            let part = kv_head * head_dim..(kv_head + 1) * head_dim;
            let root = if self.has(Flaw::ScoresNotScaled) { 1.0 } else { (head_dim as f64).sqrt() };
            let scores = self.cache[index].iter().map(|(k, _)| dot(q, &k[part.clone()]) / root);
            let weights = softmax(scores.collect());
            z.extend(part.map(|i| weights.iter().zip(&self.cache[index]).map(|(a, (_, v))| a * v[i]).sum::<f64>()));
        }
        let z = self.input(z);
        self.add_partials(x, z.len(), |cols| layer.wo.times(&z, cols));
    }

    /// Turns pairs of a head by angles that fall from `position` to `position / theta` (Su et al., 2021).
    fn rope(&self, head: &mut [f64], position: f64) {
        let header = &self.model.header;
        let pairs = head.len() / 2;
        let halves = (header.rope == RopeKind::Falcon) != self.has(Flaw::RopeOnTheOtherPairs);
        for j in 0..pairs {
            let frequency = f64::from(header.rope_theta).powf(-(j as f64) / pairs as f64);
            let angle = position * self.stretched(frequency);
            let (sin, cos) = if self.has(Flaw::NoRope) { (0.0, 1.0) } else { angle.sin_cos() };
            let (a, b) = if halves { (j, j + pairs) } else { (2 * j, 2 * j + 1) };
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }

    /// The frequency for a longer context, as published with Llama 3.1.
    fn stretched(&self, frequency: f64) -> f64 {
        let header = &self.model.header;
        let scaling = header.rope_scaling;
        if scaling.factor == 1.0 || header.rope == RopeKind::Falcon || self.has(Flaw::NoRopeScaling) {
            return frequency;
        }
        let [factor, low, high] = [scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor].map(f64::from);
        // How often the wave fits into the original context: 1 or more than `high` stays, less than `low` is stretched.
        let turns = f64::from(scaling.orig_seq_len) * frequency / std::f64::consts::TAU;
        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }

    fn feed_forward(&self, x: &mut [f64], layer: &Layer) {
        let (routed, y) = match &layer.router {
            Some(router) => {
                let y = self.rms_norm(x, &layer.norm_1);
                (self.route(softmax(router.of(&y))), self.input(y))
            }
            None => (vec![(0, 1.0)], self.normed_input(x, &layer.norm_1)),
        };
        let hidden: Vec<_> = routed
            .into_iter()
            .map(|(expert, weight)| {
                let expert = &layer.experts[expert];
                let (mut gate, mut up) = (expert.gate.of(&y), expert.up.of(&y));
                if self.has(Flaw::GateAndUpSwapped) {
                    std::mem::swap(&mut gate, &mut up);
                }
                let d = gate.into_iter().zip(up).map(|(gate, up)| self.activation(gate) * up);
                (expert, weight, self.input(d.collect()))
            })
            .collect();
        self.add_partials(x, self.model.header.ff_dim() as usize, |cols| {
            let mut sum = vec![0.0; y.len()];
            for (expert, weight, d) in &hidden {
                add(&mut sum, &expert.down.times(d, cols.clone()), *weight);
            }
            sum
        });
    }

    /// The most probable experts, and their probabilities scaled to a sum of 1.
    fn route(&self, probabilities: Vec<f64>) -> Vec<(usize, f64)> {
        let mut experts: Vec<_> = probabilities.into_iter().enumerate().collect();
        experts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let active = self.model.header.n_active_experts as usize - usize::from(self.has(Flaw::OneExpertLess));
        experts.truncate(active);
        let sum: f64 = experts.iter().map(|(_, p)| p).sum();
        let sum = if self.has(Flaw::ExpertsNotRenormalised) { 1.0 } else { sum };
        experts.iter().map(|(expert, p)| (*expert, p / sum)).collect()
    }

    fn activation(&self, x: f64) -> f64 {
        if self.has(Flaw::GeluForSilu) {
            return 0.5 * x * (1.0 + (0.797_884_560_8 * x * (1.0 + 0.044_715 * x * x)).tanh());
        }
        x / (1.0 + (-x).exp())
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `x += factor * y`
fn add(x: &mut [f64], y: &[f64], factor: f64) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += factor * y);
}

fn softmax(mut x: Vec<f64>) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f64 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
    x
}
