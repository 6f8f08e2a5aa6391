#include "runtime/evaluator.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "formats/float_convert.h"
#include "runtime/norm.h"
#include "runtime/routing.h"

namespace quern {

// What a layer hands from its attention half to its experts.
struct Evaluator::Pass {
  std::vector<float> x;          // states of the current tile [n, state_width]
  std::vector<float> y;          // input of the current sublayer [n, hidden]
  std::vector<float> out;        // its output [n, hidden]
  TokenStore normal;             // MoE input of all tokens [n_rows, hidden]
  TokenStore sum;                // MoE output of all tokens [n_rows, hidden]
  std::vector<HyperMix> mixes;   // of the MoE sublayer, all tokens
  std::vector<int32_t> experts;  // [n_rows, n_used]
  std::vector<float> weights;    // [n_rows, n_used]
};

namespace {

constexpr int64_t kExpertBatch = 1024;  // tokens of one expert multiplied together

void round_rows(bool rounded, float* rows, int64_t n) {
  for (int64_t i = 0; rounded && i < n; ++i) rows[i] = bf16_to_f32(f32_to_bf16(rows[i]));
}

std::string block_name(int64_t layer, std::string_view name) { return "blk." + std::to_string(layer) + "." + std::string(name); }

bool is_expert_stack(std::string_view name) { return name.ends_with("_exps.weight"); }

std::string list_problems(const std::vector<std::string>& problems) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, problems.size()); ++i) text += (i == 0 ? "" : "; ") + problems[i];
  if (problems.size() > kShown) text += "; and " + std::to_string(problems.size() - kShown) + " more";
  return text;
}

}  // namespace

Evaluator::Evaluator(const ModelSource& source, const EvalOptions& options)
    : source_(source), options_(options), hparams_(read_hparams(source.metadata())), index_(source) {
  compute_ = {&source, options.plain ? panel_product_plain : panel_product_fast, options.observer};
  check_tensors();
  std::vector<float> factors;
  if (const LogicalTensor* tensor = index_.find("rope_freqs.weight")) {
    index_.get("rope_freqs.weight", Shape{hparams_.ropes[0].n_dims / 2});
    RawRows raw;
    source.fetch(index_.number(*tensor), 0, 1, raw);
    factors.resize(static_cast<size_t>(hparams_.ropes[0].n_dims / 2));
    source.decode(raw, factors);
  }
  for (const RopeParams& rope : hparams_.ropes) frequencies_.push_back(rope_frequencies(rope, factors));
}

std::vector<LayerTensor> Evaluator::stored_tensors(int64_t layer) const {
  const auto has = [&](std::string_view name) { return index_.find(block_name(layer, name)) != nullptr; };
  std::vector<LayerTensor> tensors = layer_tensors(hparams_, layer, has);
  std::erase_if(tensors, [&](const LayerTensor& t) { return t.optional && !has(t.name); });
  return tensors;
}

void Evaluator::check_layer(int64_t layer, std::vector<std::string>& problems) const {
  std::vector<LayerTensor> expected = stored_tensors(layer);
  if (hparams_.layers[static_cast<size_t>(layer)].moe) {
    for (LayerTensor& stack : expert_stacks(hparams_)) expected.push_back(std::move(stack));
  }
  for (const LayerTensor& tensor : expected) {
    const std::string name = block_name(layer, tensor.name);
    const LogicalTensor* found = index_.find(name);
    if (found == nullptr) {
      problems.push_back("tensor '" + name + "' is missing");
    } else if (tensor.holding == Holding::kIntegers ? found->shape.rank() != 2 || found->shape[1] != tensor.shape[1]
                                                    : found->shape != tensor.shape) {
      problems.push_back("tensor '" + name + "' has shape " + found->shape.to_string() + ", expected " + tensor.shape.to_string());
    }
  }
  const std::string prefix = block_name(layer, "");
  for (const LogicalTensor& tensor : source_.tensors()) {
    if (!tensor.name.starts_with(prefix) || tensor.name.starts_with(prefix + "nextn.")) continue;
    const std::string_view name = std::string_view(tensor.name).substr(prefix.size());
    if (std::ranges::none_of(expected, [&](const LayerTensor& t) { return t.name == name; })) {
      problems.push_back("tensor '" + tensor.name + "' is not one the runtime knows for " + hparams_.arch);
    }
  }
}

void Evaluator::check_tensors() const {
  std::vector<std::string> problems;
  const auto n_blocks = static_cast<int64_t>(hparams_.layers.size());
  for (int64_t layer = 0; layer < n_blocks; ++layer) {
    const std::string prefix = block_name(layer, "");
    const bool stored = std::ranges::any_of(source_.tensors(), [&](const LogicalTensor& t) { return t.name.starts_with(prefix); });
    const bool draft_only = hparams_.n_mtp_layers > 0 && index_.find(block_name(hparams_.n_layers, "nextn.eh_proj.weight")) != nullptr;
    if (!stored && draft_only && layer < hparams_.n_layers) continue;  // a file that holds only the MTP block
    check_layer(layer, problems);
  }
  if (!problems.empty()) throw Error(ErrorKind::kFormat, list_problems(problems));
}

std::vector<RowTile> Evaluator::dense_tiles(int64_t layer) const {
  std::vector<RowTile> tiles;
  for (const LayerTensor& wanted : stored_tensors(layer)) {
    const LogicalTensor& tensor = *index_.find(block_name(layer, wanted.name));
    const auto more = tile_rows(tensor, index_.number(tensor), 0, tensor.shape.n_rows());
    tiles.insert(tiles.end(), more.begin(), more.end());
  }
  return tiles;
}

std::vector<RowTile> Evaluator::expert_tiles(int64_t layer, int64_t expert) const {
  std::vector<RowTile> tiles;
  for (const LayerTensor& stack : expert_stacks(hparams_)) {
    const LogicalTensor& tensor = *index_.find(block_name(layer, stack.name));
    const auto more = tile_rows(tensor, index_.number(tensor), expert * stack.shape[1], stack.shape[1]);
    tiles.insert(tiles.end(), more.begin(), more.end());
  }
  return tiles;
}

EvalPlan Evaluator::plan(std::span<const Sequence> sequences) const {
  const Hparams& h = hparams_;
  EvalPlan plan;
  int64_t longest = 0;
  for (const Sequence& sequence : sequences) {
    plan.n_tokens += static_cast<int64_t>(sequence.tokens.size());
    longest = std::max(longest, static_cast<int64_t>(sequence.tokens.size()));
  }
  const bool moe = std::ranges::any_of(h.layers, [](const LayerParams& l) { return l.moe; });
  const int64_t per_token = 4 * (h.state_width() + h.hidden + (moe ? 2 * h.hidden + 2 * h.routing.n_used : 0)) +
                            (h.n_streams > 1 ? 8 * h.n_streams * (h.n_streams + 2) + 96 : 0);
  plan.state_bytes = static_cast<uint64_t>(plan.n_tokens * per_token);
  for (int64_t layer = 0; layer < static_cast<int64_t>(h.layers.size()); ++layer) {
    uint64_t dense = 0;
    const std::string prefix = block_name(layer, "");
    for (const LogicalTensor& tensor : source_.tensors()) {
      if (!tensor.name.starts_with(prefix)) continue;
      plan.weight_bytes += tensor.source_bytes;
      if (is_expert_stack(tensor.name)) continue;
      const bool as_floats = tensor.name.ends_with("_b.weight") && h.layers[static_cast<size_t>(layer)].attention == AttentionKind::kLatent;
      dense += as_floats ? 4 * static_cast<uint64_t>(tensor.shape.n_elements()) : tensor.source_bytes;
    }
    plan.layer_bytes = std::max(plan.layer_bytes, dense);
    if (!h.layers[static_cast<size_t>(layer)].moe) continue;
    uint64_t expert = 0;
    for (const LayerTensor& stack : expert_stacks(h)) {
      const LogicalTensor* tensor = index_.find(block_name(layer, stack.name));
      if (tensor != nullptr) expert += tensor->source_bytes / static_cast<uint64_t>(stack.shape[0]);
    }
    plan.expert_bytes = std::max(plan.expert_bytes, expert);
  }
  const int64_t tile = std::min(longest, kQueryTile);
  const int64_t q = h.n_heads * (2 * h.key_dim + 2 * h.value_dim), ffn = 4 * std::max(h.dense_width, h.shared_width);
  const int64_t cached = h.kv_rank > 0 ? 2 * (h.kv_rank + h.key_dim) : h.n_kv_heads * (h.key_dim + h.value_dim) * 2;
  const int64_t mixed_latents = options_.observer != nullptr ? h.n_heads * h.kv_rank * tile : 0;
  const int64_t per_thread = (4 << 20) + 4 * longest * (kPanelWidth + (h.kv_rank > 0 ? h.key_dim + h.value_dim : 0));
  plan.work_bytes = static_cast<uint64_t>(4 * (tile * (3 * h.state_width() + 6 * h.hidden + q + ffn) + longest * cached + mixed_latents +
                                               (moe ? kExpertBatch * (3 * h.hidden + 4 * h.expert_width) : 0)) +
                                          per_thread * thread_limit()) +
                    (uint64_t{64} << 20);
  const uint64_t fixed = plan.layer_bytes + plan.expert_bytes + plan.work_bytes;
  constexpr uint64_t kMinPrefetch = uint64_t{16} << 20, kMaxPrefetch = uint64_t{1} << 30;
  if (fixed + kMinPrefetch > options_.memory_bytes) {
    throw Error(ErrorKind::kUsage, "a memory budget of " + format_size(options_.memory_bytes) +
                                       " is too small for this model and context: " + format_size(fixed + kMinPrefetch) +
                                       " are needed (one layer, one expert, one sequence)");
  }
  plan.spill = fixed + kMinPrefetch + plan.state_bytes > options_.memory_bytes;
  const uint64_t left = options_.memory_bytes - fixed - (plan.spill ? 0 : plan.state_bytes);
  plan.prefetch_bytes = std::min({left, kMaxPrefetch, std::max(kMinPrefetch, 2 * (plan.layer_bytes + plan.expert_bytes))});
  return plan;
}

void Evaluator::start(std::vector<Sequence> sequences) {
  const EvalPlan p = plan(sequences);
  spill_ = p.spill;
  if (caches_.empty() || caches_[0].size() != sequences.size()) {
    caches_.assign(hparams_.layers.size(), std::vector<LayerCache>(options_.keep_caches ? sequences.size() : 0));
  }
  sequences_ = std::move(sequences);
  first_rows_.clear();
  n_rows_ = 0;
  for (const Sequence& sequence : sequences_) {
    first_rows_.push_back(n_rows_);
    n_rows_ += static_cast<int64_t>(sequence.tokens.size());
  }
  states_ = TokenStore(n_rows_, hparams_.state_width(), spill_);
  final_ = TokenStore();
  if (!prefetcher_) prefetcher_ = std::make_unique<Prefetcher>(source_, p.prefetch_bytes);
}

void Evaluator::set_states(int64_t first_row, int64_t n, const float* rows) { states_.write(first_row, n, rows); }

void Evaluator::embed() {
  const LogicalTensor* tensor = index_.find("token_embd.weight");
  if (tensor == nullptr || tensor->shape.rank() != 2 || tensor->shape[1] != hparams_.hidden) {
    throw Error(ErrorKind::kFormat, "missing, or its rows are not " + std::to_string(hparams_.hidden) + " wide")
        .tensor("token_embd.weight");
  }
  std::vector<std::pair<int32_t, int64_t>> rows;  // token id, row of the states: each embedding row is read once
  for (size_t s = 0; s < sequences_.size(); ++s) {
    for (size_t i = 0; i < sequences_[s].tokens.size(); ++i) {
      rows.emplace_back(sequences_[s].tokens[i], first_rows_[s] + static_cast<int64_t>(i));
    }
  }
  std::ranges::sort(rows);
  std::vector<float> state(static_cast<size_t>(hparams_.state_width()));
  RawRows raw;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [token, row] = rows[i];
    if (i == 0 || token != rows[i - 1].first) {
      if (token < 0 || token >= tensor->shape[0]) {
        throw Error(ErrorKind::kFormat,
                    "token " + std::to_string(token) + " is outside the model's vocabulary of " + std::to_string(tensor->shape[0]));
      }
      source_.fetch(index_.number(*tensor), token, 1, raw);
      source_.decode(raw, std::span(state).first(static_cast<size_t>(hparams_.hidden)));
      for (int64_t j = 1; j < hparams_.n_streams; ++j) std::copy_n(state.begin(), hparams_.hidden, state.begin() + j * hparams_.hidden);
    }
    states_.write(row, 1, state.data());
  }
}

StoredMatrix Evaluator::take_matrix(const LogicalTensor& tensor, int64_t first_row, int64_t n_rows) {
  StoredMatrix matrix{&tensor, n_rows, tensor.shape.row_length(), {}};
  for (size_t i = tile_rows(tensor, index_.number(tensor), first_row, n_rows).size(); i > 0; --i)
    matrix.tiles.push_back(prefetcher_->take());
  const auto share = static_cast<uint64_t>(static_cast<double>(tensor.source_bytes) * static_cast<double>(n_rows) /
                                           static_cast<double>(tensor.shape.n_rows()));
  layer_progress_ += share;
  if (progress_ != nullptr) progress_->advance(share);
  return matrix;
}

LayerWeights Evaluator::take_layer(int64_t layer) {
  LayerWeights weights;
  for (const LayerTensor& wanted : stored_tensors(layer)) {
    const LogicalTensor& tensor = *index_.find(block_name(layer, wanted.name));
    StoredMatrix matrix = take_matrix(tensor, 0, tensor.shape.n_rows());
    if (wanted.holding == Holding::kMatrix) {
      weights.matrices.emplace(wanted.name, std::move(matrix));
    } else if (wanted.holding == Holding::kValues) {
      weights.values.emplace(wanted.name, decode_all(source_, matrix));
    } else {
      std::vector<int32_t> ids;
      for (const RawRows& tile : matrix.tiles) {
        const size_t begin = ids.size();
        ids.resize(begin + static_cast<size_t>(tile.n_rows * matrix.n_columns));
        source_.copy(tile, DType::I32, std::as_writable_bytes(std::span(ids).subspan(begin)));
      }
      weights.integers.emplace(wanted.name, std::move(ids));
    }
  }
  return weights;
}

uint64_t Evaluator::layer_bytes(int64_t layer) const {
  uint64_t sum = 0;
  const std::string prefix = block_name(layer, "");
  for (const LogicalTensor& tensor : source_.tensors()) sum += tensor.name.starts_with(prefix) ? tensor.source_bytes : 0;
  return sum;
}

bool Evaluator::all_experts_expected() const noexcept { return n_rows_ * hparams_.routing.n_used >= 16 * hparams_.routing.n_experts; }

void Evaluator::run_layers(int64_t first, int64_t end, Progress& progress, const RoutingObserver& observer) {
  progress_ = &progress;
  uint64_t total = 0;
  for (int64_t layer = first; layer < end; ++layer) total += layer_bytes(layer);
  progress.begin("evaluating", total);
  if (first < end) prefetcher_->request(dense_tiles(first));
  for (int64_t layer = first; layer < end; ++layer) {
    try {
      layer_progress_ = 0;
      progress.step("layer " + std::to_string(layer + 1) + "/" + std::to_string(end));
      run_layer(layer, layer + 1 == end, observer);
      progress.advance(layer_bytes(layer) - layer_progress_);  // experts that no token chose
    } catch (...) {
      prefetcher_.reset();  // tiles that nobody will take
      throw;
    }
  }
  progress.end();
  progress_ = nullptr;
}

void Evaluator::run_layer(int64_t layer, bool last, const RoutingObserver& observer) {
  const LayerParams& params = hparams_.layers[static_cast<size_t>(layer)];
  const LayerWeights weights = take_layer(layer);
  const LayerContext context{hparams_, params, weights, compute_, hparams_.ropes[params.rope], frequencies_[params.rope]};
  const bool ask_early = params.moe && all_experts_expected();
  if (ask_early) {
    for (int64_t e = 0; e < hparams_.routing.n_experts; ++e) prefetcher_->request(expert_tiles(layer, e));
  }
  Pass pass;
  if (params.moe) {
    pass.normal = TokenStore(n_rows_, hparams_.hidden, spill_);
    pass.sum = TokenStore(n_rows_, hparams_.hidden, spill_);
    pass.experts.resize(static_cast<size_t>(n_rows_ * hparams_.routing.n_used));
    pass.weights.resize(pass.experts.size());
    if (hparams_.n_streams > 1) pass.mixes.resize(static_cast<size_t>(n_rows_));
  }
  for (size_t s = 0; s < sequences_.size(); ++s) {
    throw_if_interrupted();
    run_sequence(context, s, pass);
  }
  if (params.moe) {
    Routing routing{pass.experts, pass.weights};
    if (observer) observer(layer, routing);
    if (!routing.run_experts) return prefetcher_.reset();  // with the experts' tiles that nobody will take
    run_experts(context, layer, ask_early, pass);
    if (!last) prefetcher_->request(dense_tiles(layer + 1));
    add_outputs(context, pass);
  } else if (!last) {
    prefetcher_->request(dense_tiles(layer + 1));
  }
}

void Evaluator::run_sequence(const LayerContext& context, size_t s, Pass& pass) {
  const auto layer = static_cast<size_t>(&context.layer - hparams_.layers.data());
  const Sequence& sequence = sequences_[s];
  LayerCache fresh;
  LayerCache& cache = options_.keep_caches ? caches_[layer][s] : fresh;
  const auto length = static_cast<int64_t>(sequence.tokens.size());
  for (int64_t t = 0; t < length; t += kQueryTile) {
    const int64_t n = std::min(kQueryTile, length - t), first_row = first_rows_[s] + t;
    pass.x.resize(static_cast<size_t>(n * hparams_.state_width()));
    pass.y.resize(static_cast<size_t>(n * hparams_.hidden));
    pass.out.resize(pass.y.size());
    states_.read(first_row, n, pass.x.data());
    attention_tile(context, n, sequence.rounded, cache, pass);
    check_finite(first_row, n, pass.x.data(), block_name(static_cast<int64_t>(layer), "attn_output"));
    const std::span<const int32_t> tokens(sequence.tokens.data() + t, static_cast<size_t>(n));
    feed_forward_tile(context, first_row, n, tokens, sequence.rounded, pass);
    check_finite(first_row, n, pass.x.data(), block_name(static_cast<int64_t>(layer), "ffn_down"));
    states_.write(first_row, n, pass.x.data());
  }
}

namespace {

// The input of a hyper-connection's matrix are normalised streams; the runtime multiplies first and scales the product.
void observe_streams(const Compute& compute, const StoredMatrix& fn, const float* states, int64_t n, double norm_eps) {
  if (compute.observer == nullptr) return;
  std::vector<float> rows(static_cast<size_t>(n * fn.n_columns));
  for (int64_t t = 0; t < n; ++t) rms_norm(states + t * fn.n_columns, nullptr, fn.n_columns, norm_eps, rows.data() + t * fn.n_columns);
  observe(compute, {&fn}, PackedRows(rows.data(), n, fn.n_columns, fn.n_columns));
}

}  // namespace

std::vector<HyperMix> Evaluator::hyper_mixes(const LayerContext& context, const char* prefix, int64_t n, const float* states) const {
  const std::string name = prefix;
  const StoredMatrix& fn = context.weights.matrix(name + "_fn.weight");
  std::vector<float> mixes(static_cast<size_t>(n * fn.n_rows));
  linear(compute_, fn, PackedRows(states, n, fn.n_columns, fn.n_columns), mixes.data(), fn.n_rows);
  observe_streams(compute_, fn, states, n, hparams_.norm_eps);
  const HyperWeights weights{context.weights.value(name + "_base.weight"), context.weights.value(name + "_scale.weight")};
  std::vector<HyperMix> result;
  for (int64_t t = 0; t < n; ++t) {
    const double scale = inverse_rms(states + t * fn.n_columns, fn.n_columns, hparams_.norm_eps);
    const std::span<const float> of_token(mixes.data() + t * fn.n_rows, static_cast<size_t>(fn.n_rows));
    result.push_back(hyper_mix(of_token, scale, weights, hparams_.n_streams, hparams_.sinkhorn_iterations, hparams_.hyper_eps));
  }
  return result;
}

namespace {

// Input of a sublayer: the streams read through their mix, or the state itself, normalised.
void read_states(const Hparams& h, std::span<const float> norm, std::span<const HyperMix> mixes, const float* states, int64_t n,
                 bool rounded, float* y) {
  for (int64_t t = 0; t < n; ++t) {
    float* row = y + t * h.hidden;
    if (mixes.empty()) {
      rms_norm(states + t * h.hidden, norm.data(), h.hidden, h.norm_eps, row);
    } else {
      hyper_read(states + t * h.state_width(), mixes[static_cast<size_t>(t)].pre, h.hidden, row);
      rms_norm(row, norm.data(), h.hidden, h.norm_eps, row);
    }
  }
  round_rows(rounded, y, n * h.hidden);
}

// The states with the output of a sublayer added.
void write_states(const Hparams& h, std::span<const HyperMix> mixes, const float* out, int64_t n, bool rounded, float* states) {
  if (mixes.empty()) {
    for (int64_t i = 0; i < n * h.hidden; ++i) states[i] += out[i];
  } else {
    for (int64_t t = 0; t < n; ++t) hyper_write(states + t * h.state_width(), out + t * h.hidden, mixes[static_cast<size_t>(t)], h.hidden);
  }
  round_rows(rounded, states, n * h.state_width());
}

std::span<const float> ffn_norm(const LayerWeights& weights) {
  const std::span<const float> norm = weights.value("ffn_norm.weight");
  return norm.empty() ? weights.value("post_attention_norm.weight") : norm;
}

FfnWeights dense_ffn(const LayerWeights& weights, const std::string& suffix) {
  return {&weights.matrix("ffn_gate" + suffix + ".weight"),
          &weights.matrix("ffn_up" + suffix + ".weight"),
          &weights.matrix("ffn_down" + suffix + ".weight"),
          weights.value("ffn_gate" + suffix + ".bias"),
          weights.value("ffn_up" + suffix + ".bias"),
          weights.value("ffn_down" + suffix + ".bias"),
          -1,
          {}};
}

}  // namespace

void Evaluator::attention_tile(const LayerContext& context, int64_t n, bool rounded, LayerCache& cache, Pass& pass) {
  std::vector<HyperMix> mixes;
  if (hparams_.n_streams > 1) mixes = hyper_mixes(context, "hc_attn", n, pass.x.data());
  read_states(hparams_, context.weights.value("attn_norm.weight"), mixes, pass.x.data(), n, rounded, pass.y.data());
  attention_block(context, pass.y.data(), n, cache, pass.out.data());
  write_states(hparams_, mixes, pass.out.data(), n, rounded, pass.x.data());
}

void Evaluator::feed_forward_tile(const LayerContext& context, int64_t first_row, int64_t n, std::span<const int32_t> tokens, bool rounded,
                                  Pass& pass) {
  std::vector<HyperMix> mixes;
  if (hparams_.n_streams > 1) mixes = hyper_mixes(context, "hc_ffn", n, pass.x.data());
  read_states(hparams_, ffn_norm(context.weights), mixes, pass.x.data(), n, rounded, pass.y.data());
  const PackedRows packed(pass.y.data(), n, hparams_.hidden, hparams_.hidden);
  if (!context.layer.moe) {
    ffn_block(compute_, dense_ffn(context.weights, ""), context.layer.activation, context.layer.clamp_shared, packed, pass.out.data());
    write_states(hparams_, mixes, pass.out.data(), n, rounded, pass.x.data());
    return;
  }
  select_experts(context, first_row, packed, tokens, pass);
  if (context.weights.find_matrix("ffn_gate_shexp.weight") != nullptr) {
    ffn_block(compute_, dense_ffn(context.weights, "_shexp"), context.layer.activation, context.layer.clamp_shared, packed,
              pass.out.data());
  } else {
    std::ranges::fill(pass.out, 0.0f);
  }
  pass.normal.write(first_row, n, pass.y.data());
  pass.sum.write(first_row, n, pass.out.data());
  for (size_t t = 0; t < mixes.size(); ++t) pass.mixes[static_cast<size_t>(first_row) + t] = std::move(mixes[t]);
}

void Evaluator::select_experts(const LayerContext& context, int64_t first_row, const PackedRows& x, std::span<const int32_t> tokens,
                               Pass& pass) {
  const RoutingParams& routing = hparams_.routing;
  const auto n_experts = static_cast<size_t>(routing.n_experts), n_used = static_cast<size_t>(routing.n_used);
  std::vector<float> logits(tokens.size() * n_experts);
  router_logits(context, x, logits.data());
  for (size_t t = 0; t < tokens.size(); ++t) {
    const std::span<const float> of_token(logits.data() + t * n_experts, n_experts);
    const size_t slot = (static_cast<size_t>(first_row) + t) * n_used;
    const Selection selection{pass.experts.data() + slot, pass.weights.data() + slot};
    if (!std::ranges::all_of(of_token, [](float v) { return std::isfinite(v); })) {
      throw Error(ErrorKind::kFormat, "router logits of token " + std::to_string(first_row + static_cast<int64_t>(t)) + " are not finite")
          .tensor(context.weights.matrix("ffn_gate_inp.weight").info->name);
    }
    if (!context.layer.hash_routing) {
      route(routing, of_token, context.weights.value("exp_probs_b.bias"), selection);
      continue;
    }
    const std::vector<int32_t>& table = context.weights.integers.find("ffn_gate_tid2eid.weight")->second;
    const size_t row = static_cast<size_t>(tokens[t]) * n_used;
    if (row + n_used > table.size())
      throw Error(ErrorKind::kFormat, "token " + std::to_string(tokens[t]) + " has no row in the expert table");
    const std::span<const int32_t> experts(table.data() + row, n_used);
    for (const int32_t e : experts) {
      if (e < 0 || e >= routing.n_experts)
        throw Error(ErrorKind::kFormat, "expert " + std::to_string(e) + " does not exist").tensor("ffn_gate_tid2eid.weight");
    }
    route_to(routing, of_token, experts, selection);
  }
}

void Evaluator::run_experts(const LayerContext& context, int64_t layer, bool requested, Pass& pass) {
  std::vector<std::vector<int64_t>> slots(static_cast<size_t>(hparams_.routing.n_experts));  // positions in pass.experts
  for (size_t i = 0; i < pass.experts.size(); ++i) slots[static_cast<size_t>(pass.experts[i])].push_back(static_cast<int64_t>(i));
  const auto is_read = [&](size_t e) { return requested || !slots[e].empty(); };
  for (size_t e = 0; !requested && e < slots.size(); ++e) {
    if (is_read(e)) prefetcher_->request(expert_tiles(layer, static_cast<int64_t>(e)));
  }
  for (size_t e = 0; e < slots.size(); ++e) {
    throw_if_interrupted();
    if (is_read(e)) apply_expert(context, layer, static_cast<int64_t>(e), slots[e], pass);
  }
}

void Evaluator::apply_expert(const LayerContext& context, int64_t layer, int64_t expert, std::span<const int64_t> slots, Pass& pass) {
  std::vector<StoredMatrix> matrices;
  for (const LayerTensor& stack : expert_stacks(hparams_)) {
    matrices.push_back(take_matrix(*index_.find(block_name(layer, stack.name)), expert * stack.shape[1], stack.shape[1]));
  }
  const auto bias = [&](const char* name, int64_t width) {
    const std::span<const float> all = context.weights.value(name);
    return all.empty() ? all : all.subspan(static_cast<size_t>(expert * width), static_cast<size_t>(width));
  };
  FfnWeights ffn{&matrices[0],
                 &matrices[1],
                 &matrices[2],
                 bias("ffn_gate_exps.bias", hparams_.expert_width),
                 bias("ffn_up_exps.bias", hparams_.expert_width),
                 bias("ffn_down_exps.bias", hparams_.hidden),
                 expert,
                 {}};
  const int64_t hidden = hparams_.hidden, n_used = hparams_.routing.n_used;
  std::vector<float> sum(static_cast<size_t>(hidden)), shares;
  for (size_t first = 0; first < slots.size(); first += static_cast<size_t>(kExpertBatch)) {
    const auto batch = slots.subspan(first, std::min(slots.size() - first, static_cast<size_t>(kExpertBatch)));
    const auto n = static_cast<int64_t>(batch.size());
    pass.y.resize(static_cast<size_t>(n * hidden));
    pass.out.resize(pass.y.size());
    shares.clear();
    for (const int64_t slot : batch) shares.push_back(pass.weights[static_cast<size_t>(slot)]);
    ffn.shares = shares;
    for (int64_t i = 0; i < n; ++i) pass.normal.read(batch[static_cast<size_t>(i)] / n_used, 1, pass.y.data() + i * hidden);
    ffn_block(compute_, ffn, context.layer.activation, context.layer.clamp_experts, PackedRows(pass.y.data(), n, hidden, hidden),
              pass.out.data());
    for (int64_t i = 0; i < n; ++i) {
      const int64_t slot = batch[static_cast<size_t>(i)];
      const float weight = pass.weights[static_cast<size_t>(slot)];
      pass.sum.read(slot / n_used, 1, sum.data());
      for (int64_t k = 0; k < hidden; ++k) sum[static_cast<size_t>(k)] += weight * pass.out[static_cast<size_t>(i * hidden + k)];
      pass.sum.write(slot / n_used, 1, sum.data());
    }
  }
}

void Evaluator::add_outputs(const LayerContext& context, Pass& pass) {
  const auto layer = static_cast<int64_t>(&context.layer - hparams_.layers.data());
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const auto length = static_cast<int64_t>(sequences_[s].tokens.size());
    for (int64_t t = 0; t < length; t += kQueryTile) {
      const int64_t n = std::min(kQueryTile, length - t), first_row = first_rows_[s] + t;
      pass.x.resize(static_cast<size_t>(n * hparams_.state_width()));
      pass.out.resize(static_cast<size_t>(n * hparams_.hidden));
      states_.read(first_row, n, pass.x.data());
      pass.sum.read(first_row, n, pass.out.data());
      std::span<const HyperMix> mixes;
      if (!pass.mixes.empty()) mixes = std::span(pass.mixes).subspan(static_cast<size_t>(first_row), static_cast<size_t>(n));
      write_states(hparams_, mixes, pass.out.data(), n, sequences_[s].rounded, pass.x.data());
      check_finite(first_row, n, pass.x.data(), block_name(layer, "ffn_down_exps"));
      states_.write(first_row, n, pass.x.data());
    }
  }
}

void Evaluator::check_finite(int64_t first_row, int64_t n, const float* rows, const std::string& tensor) const {
  const int64_t width = hparams_.state_width();
  const float* bad = std::find_if_not(rows, rows + n * width, [](float v) { return std::isfinite(v); });
  if (bad == rows + n * width) return;
  const int64_t row = first_row + (bad - rows) / width;
  const auto after = std::ranges::upper_bound(first_rows_, row);
  const auto s = after - first_rows_.begin() - 1;
  throw Error(ErrorKind::kFormat, "the state after this product is not finite (sequence " + std::to_string(s) + ", token " +
                                      std::to_string(row - first_rows_[static_cast<size_t>(s)]) + ")")
      .tensor(tensor);
}

void Evaluator::finish(std::string_view norm_name) {
  const auto vector = [&](std::string_view name, int64_t n) {
    const LogicalTensor& tensor = index_.get(name, Shape{n});
    prefetcher_->request(tile_rows(tensor, index_.number(tensor), 0, 1));
    return decode_all(source_, take_matrix(tensor, 0, 1));
  };
  const std::vector<float> norm = vector(norm_name, hparams_.hidden);
  std::vector<float> base, scale;
  StoredMatrix fn;
  if (hparams_.n_streams > 1) {
    base = vector("output_hc_base.weight", hparams_.n_streams);
    scale = vector("output_hc_scale.weight", 1);
    const LogicalTensor& tensor = index_.get("output_hc_fn.weight", Shape{hparams_.n_streams, hparams_.state_width()});
    prefetcher_->request(tile_rows(tensor, index_.number(tensor), 0, tensor.shape[0]));
    fn = take_matrix(tensor, 0, tensor.shape[0]);
  }
  final_ = TokenStore(n_rows_, hparams_.hidden, spill_);
  std::vector<float> x, y, mixes;
  for (int64_t row = 0; row < n_rows_; row += kQueryTile) {
    const int64_t n = std::min(kQueryTile, n_rows_ - row), width = hparams_.state_width();
    x.resize(static_cast<size_t>(n * width));
    y.resize(static_cast<size_t>(n * hparams_.hidden));
    states_.read(row, n, x.data());
    if (hparams_.n_streams > 1) {
      mixes.resize(static_cast<size_t>(n * hparams_.n_streams));
      linear(compute_, fn, PackedRows(x.data(), n, width, width), mixes.data(), hparams_.n_streams);
      observe_streams(compute_, fn, x.data(), n, hparams_.norm_eps);
    }
    for (int64_t t = 0; t < n; ++t) {
      const float* state = x.data() + t * width;
      float* out = y.data() + t * hparams_.hidden;
      if (hparams_.n_streams > 1) {
        const std::span<const float> of_token(mixes.data() + t * hparams_.n_streams, static_cast<size_t>(hparams_.n_streams));
        hyper_read(state, hyper_head_mix(of_token, inverse_rms(state, width, hparams_.norm_eps), {base, scale}, hparams_.hyper_eps),
                   hparams_.hidden, out);
        state = out;
      }
      rms_norm(state, norm.data(), hparams_.hidden, hparams_.norm_eps, out);
    }
    final_.write(row, n, y.data());
    if (compute_.observer != nullptr && norm_name == "output_norm.weight") {
      const std::string_view head[] = {index_.find("output.weight") != nullptr ? "output.weight" : "token_embd.weight"};
      const PackedRows packed(y.data(), n, hparams_.hidden, hparams_.hidden);
      compute_.observer->observe({head, -1, &packed, {}});
    }
  }
}

}  // namespace quern
