#include "runtime/pass/evaluator.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "formats/arch/key_reader.h"
#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/types/decode.h"
#include "formats/types/float_convert.h"
#include "runtime/math/vector_math.h"
#include "runtime/pass/evaluator_pass.h"

namespace quern {

namespace {

void round_rows(bool rounded, float* rows, int64_t n) {
  for (int64_t i = 0; rounded && i < n; ++i) rows[i] = bf16_to_f32(f32_to_bf16(rows[i]));
}

std::string list_problems(const std::vector<std::string>& problems) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, problems.size()); ++i) text += (i == 0 ? "" : "; ") + problems[i];
  if (problems.size() > kShown) text += "; and " + std::to_string(problems.size() - kShown) + " more";
  return text;
}

}  // namespace

Evaluator::~Evaluator() = default;

Evaluator::Evaluator(const ModelSource& source, const EvalOptions& options)
    : source_(source), options_(options), hparams_(read_hparams(source.metadata())), index_(source) {
  compute_ = {&source, &product_kernel(options.arithmetic), options.observer};
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
  batches_ = make_batches(p.batch_tokens);
  expert_group_bytes_ = p.expert_group_bytes;
  pass_ = std::make_unique<Pass>();
  if (has_experts()) {
    pass_->normal = TokenStore(n_rows_, hparams_.hidden, spill_);
    pass_->sum = TokenStore(n_rows_, hparams_.hidden, spill_);
    pass_->experts.resize(static_cast<size_t>(n_rows_ * hparams_.routing.n_used));
    pass_->weights.resize(pass_->experts.size());
    if (hparams_.n_streams > 1) pass_->mixes.resize(static_cast<size_t>(n_rows_));
  }
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
  const LayerContext context{hparams_, params, weights, compute_, hparams_.ropes[params.rope], frequencies_[params.rope], pass_->work};
  const bool ask_early = params.moe && all_experts_expected();
  if (ask_early) {
    for (int64_t e = 0; e < hparams_.routing.n_experts; ++e) prefetcher_->request(expert_tiles(layer, e));
  }
  for (const Batch& batch : batches_) {
    throw_if_interrupted();
    run_batch(context, batch);
  }
  if (params.moe) {
    Routing routing{pass_->experts, pass_->weights};
    if (observer) observer(layer, routing);
    if (!routing.run_experts) return prefetcher_.reset();  // with the experts' tiles that nobody will take
    run_experts(context, layer, ask_early);
    if (!last) prefetcher_->request(dense_tiles(layer + 1));
    add_outputs(context);
  } else if (!last) {
    prefetcher_->request(dense_tiles(layer + 1));
  }
}

LayerCache& Evaluator::cache_of(int64_t layer, size_t sequence) {
  if (options_.keep_caches) return caches_[static_cast<size_t>(layer)][sequence];
  std::map<size_t, LayerCache>& open = pass_->open_caches;
  if (const auto found = open.find(sequence); found != open.end()) return found->second;
  if (pass_->idle_caches.empty()) return open[sequence];
  LayerCache& cache = open[sequence] = std::move(pass_->idle_caches.back());
  pass_->idle_caches.pop_back();
  return cache;
}

// The caches of sequences that end in this batch, emptied for the next ones.
void Evaluator::close_caches(const Batch& batch) {
  for (const BatchPart& part : batch.parts) {
    if (part.first_token + part.n < static_cast<int64_t>(sequences_[part.sequence].tokens.size())) continue;
    const auto found = pass_->open_caches.find(part.sequence);
    if (found == pass_->open_caches.end()) continue;
    found->second.clear();
    pass_->idle_caches.push_back(std::move(found->second));
    pass_->open_caches.erase(found);
  }
}

void Evaluator::run_batch(const LayerContext& context, const Batch& batch) {
  const auto layer = static_cast<int64_t>(&context.layer - hparams_.layers.data());
  std::vector<Piece> pieces;
  for (const BatchPart& part : batch.parts) {
    pieces.push_back({first_rows_[part.sequence] + part.first_token - batch.first_row, part.n, &cache_of(layer, part.sequence),
                      sequences_[part.sequence].rounded});
  }
  float* x = states_.in_memory(batch.first_row);
  if (x == nullptr) states_.read(batch.first_row, batch.n, x = pass_->x.resize(batch.n * hparams_.state_width()));
  attention_batch(context, batch, pieces, x);
  check_finite(batch.first_row, batch.n, x, block_name(layer, "attn_output"));
  feed_forward_batch(context, batch, pieces, x);
  check_finite(batch.first_row, batch.n, x, block_name(layer, "ffn_down"));
  if (states_.in_memory(batch.first_row) == nullptr) states_.write(batch.first_row, batch.n, x);
  close_caches(batch);
}

namespace {

constexpr int64_t kRowGrain = 16;

// The input of a hyper-connection's matrix are normalised streams; the runtime multiplies first and scales the product.
void observe_streams(const Compute& compute, const StoredMatrix& fn, const float* states, std::span<const Piece> pieces, double norm_eps) {
  if (compute.observer == nullptr) return;
  const std::string_view name = fn.info->name;
  for (const Piece& piece : pieces) {
    std::vector<float> rows(static_cast<size_t>(piece.n * fn.n_columns));
    for (int64_t t = 0; t < piece.n; ++t) {
      rms_norm(states + (piece.first + t) * fn.n_columns, nullptr, fn.n_columns, norm_eps, rows.data() + t * fn.n_columns);
    }
    observe(compute, std::span(&name, 1), {rows.data(), piece.n, fn.n_columns, fn.n_columns});
  }
}

}  // namespace

std::vector<HyperMix> Evaluator::hyper_mixes(const LayerContext& context, const char* prefix, std::span<const Piece> pieces, int64_t n,
                                             const float* states) const {
  const std::string name = prefix;
  const StoredMatrix& fn = context.weights.matrix(name + "_fn.weight");
  std::vector<float> mixes(static_cast<size_t>(n * fn.n_rows));
  const PackedMatrix packed = pack_input(compute_, {states, n, fn.n_columns, fn.n_columns}, context.work.packed_input);
  linear(compute_, fn, packed, mixes.data(), fn.n_rows);
  observe_streams(compute_, fn, states, pieces, hparams_.norm_eps);
  const HyperWeights weights{context.weights.value(name + "_base.weight"), context.weights.value(name + "_scale.weight")};
  std::vector<HyperMix> result(static_cast<size_t>(n));
  parallel_for(n, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const double scale = inverse_rms(states + t * fn.n_columns, fn.n_columns, hparams_.norm_eps);
      const std::span<const float> of_token(mixes.data() + t * fn.n_rows, static_cast<size_t>(fn.n_rows));
      result[static_cast<size_t>(t)] =
          hyper_mix(of_token, scale, weights, hparams_.n_streams, hparams_.sinkhorn_iterations, hparams_.hyper_eps);
    }
  });
  return result;
}

namespace {

// Input of a sublayer: the streams read through their mix, or the state itself, normalised.
void read_states(const Hparams& h, std::span<const float> norm, std::span<const HyperMix> mixes, const float* states,
                 std::span<const Piece> pieces, float* y) {
  for (const Piece& piece : pieces) {
    parallel_for(piece.n, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = piece.first + begin; t < piece.first + end; ++t) {
        float* row = y + t * h.hidden;
        if (mixes.empty()) {
          rms_norm(states + t * h.hidden, norm.data(), h.hidden, h.norm_eps, row);
        } else {
          hyper_read(states + t * h.state_width(), mixes[static_cast<size_t>(t)].pre, h.hidden, row);
          rms_norm(row, norm.data(), h.hidden, h.norm_eps, row);
        }
        round_rows(piece.rounded, row, h.hidden);
      }
    });
  }
}

// The states with the output of a sublayer added.
void write_states(const Hparams& h, std::span<const HyperMix> mixes, const float* out, std::span<const Piece> pieces, float* states) {
  for (const Piece& piece : pieces) {
    parallel_for(piece.n, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = piece.first + begin; t < piece.first + end; ++t) {
        float* state = states + t * h.state_width();
        if (mixes.empty()) {
          for (int64_t i = 0; i < h.hidden; ++i) state[i] += out[t * h.hidden + i];
        } else {
          hyper_write(state, out + t * h.hidden, mixes[static_cast<size_t>(t)], h.hidden);
        }
        round_rows(piece.rounded, state, h.state_width());
      }
    });
  }
}

std::span<const float> ffn_norm(const LayerWeights& weights) {
  const std::span<const float> norm = weights.value("ffn_norm.weight");
  return norm.empty() ? weights.value("post_attention_norm.weight") : norm;
}

FfnWeights dense_ffn(const LayerWeights& weights, const std::string& suffix) {
  return {&weights.matrix("ffn_gate" + suffix + ".weight"), &weights.matrix("ffn_up" + suffix + ".weight"),
          &weights.matrix("ffn_down" + suffix + ".weight"), weights.value("ffn_gate" + suffix + ".bias"),
          weights.value("ffn_up" + suffix + ".bias"),       weights.value("ffn_down" + suffix + ".bias")};
}

}  // namespace

void Evaluator::attention_batch(const LayerContext& context, const Batch& batch, std::span<const Piece> pieces, float* x) {
  std::vector<HyperMix> mixes;
  if (hparams_.n_streams > 1) mixes = hyper_mixes(context, "hc_attn", pieces, batch.n, x);
  float* y = pass_->y.resize(batch.n * hparams_.hidden);
  float* out = pass_->out.resize(batch.n * hparams_.hidden);
  read_states(hparams_, context.weights.value("attn_norm.weight"), mixes, x, pieces, y);
  attention_block(context, {y, batch.n, hparams_.hidden, hparams_.hidden}, pieces, out);
  write_states(hparams_, mixes, out, pieces, x);
}

void Evaluator::feed_forward_batch(const LayerContext& context, const Batch& batch, std::span<const Piece> pieces, float* x) {
  std::vector<HyperMix> mixes;
  if (hparams_.n_streams > 1) mixes = hyper_mixes(context, "hc_ffn", pieces, batch.n, x);
  float* y = pass_->y.resize(batch.n * hparams_.hidden);
  float* out = pass_->out.resize(batch.n * hparams_.hidden);
  read_states(hparams_, ffn_norm(context.weights), mixes, x, pieces, y);
  const Rows rows{y, batch.n, hparams_.hidden, hparams_.hidden};
  const auto apply = [&](const FfnWeights& weights, double limit) {
    const FfnRows all{&weights, 0, batch.n, pieces, {}};
    ffn_block(compute_, context.work, std::span(&all, 1), context.layer.activation, limit, rows, out);
  };
  if (!context.layer.moe) {
    apply(dense_ffn(context.weights, ""), context.layer.clamp_shared);
    write_states(hparams_, mixes, out, pieces, x);
    return;
  }
  select_experts(context, batch, pieces, rows);
  if (context.weights.find_matrix("ffn_gate_shexp.weight") != nullptr) {
    apply(dense_ffn(context.weights, "_shexp"), context.layer.clamp_shared);
  } else {
    std::fill(out, out + batch.n * hparams_.hidden, 0.0f);
  }
  pass_->normal.write(batch.first_row, batch.n, y);
  pass_->sum.write(batch.first_row, batch.n, out);
  for (size_t t = 0; t < mixes.size(); ++t) pass_->mixes[static_cast<size_t>(batch.first_row) + t] = std::move(mixes[t]);
}

void Evaluator::add_outputs(const LayerContext& context) {
  const auto layer = static_cast<int64_t>(&context.layer - hparams_.layers.data());
  for (const Batch& batch : batches_) {
    std::vector<Piece> pieces;
    for (const BatchPart& part : batch.parts) {
      pieces.push_back(
          {first_rows_[part.sequence] + part.first_token - batch.first_row, part.n, nullptr, sequences_[part.sequence].rounded});
    }
    float* x = states_.in_memory(batch.first_row);
    const bool stored = x == nullptr;
    if (stored) states_.read(batch.first_row, batch.n, x = pass_->x.resize(batch.n * hparams_.state_width()));
    float* out = pass_->out.resize(batch.n * hparams_.hidden);
    pass_->sum.read(batch.first_row, batch.n, out);
    std::span<const HyperMix> mixes;
    if (!pass_->mixes.empty()) mixes = std::span(pass_->mixes).subspan(static_cast<size_t>(batch.first_row), static_cast<size_t>(batch.n));
    write_states(hparams_, mixes, out, pieces, x);
    check_finite(batch.first_row, batch.n, x, block_name(layer, "ffn_down_exps"));
    if (stored) states_.write(batch.first_row, batch.n, x);
  }
}

void Evaluator::check_finite(int64_t first_row, int64_t n, const float* rows, const std::string& tensor) const {
  const int64_t width = hparams_.state_width();
  std::atomic<int64_t> bad{n};
  parallel_for(n, kRowGrain, [&](int64_t begin, int64_t end) {
    const std::span<const float> part(rows + begin * width, static_cast<size_t>((end - begin) * width));
    const int64_t found = find_nonfinite_block(DType::F32, std::as_bytes(part));
    if (found < 0) return;
    for (int64_t row = begin + found / width, seen = bad; row < seen && !bad.compare_exchange_weak(seen, row);) {
    }
  });
  if (bad == n) return;
  const int64_t row = first_row + bad;
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
      linear(compute_, fn, Rows{x.data(), n, width, width}, mixes.data(), hparams_.n_streams);
      const Piece all{0, n};
      observe_streams(compute_, fn, x.data(), std::span(&all, 1), hparams_.norm_eps);
    }
    const auto finish_row = [&](int64_t t) {
      const float* state = x.data() + t * width;
      float* out = y.data() + t * hparams_.hidden;
      if (hparams_.n_streams > 1) {
        const std::span<const float> of_token(mixes.data() + t * hparams_.n_streams, static_cast<size_t>(hparams_.n_streams));
        hyper_read(state, hyper_head_mix(of_token, inverse_rms(state, width, hparams_.norm_eps), {base, scale}, hparams_.hyper_eps),
                   hparams_.hidden, out);
        state = out;
      }
      rms_norm(state, norm.data(), hparams_.hidden, hparams_.norm_eps, out);
    };
    parallel_for(n, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) finish_row(t);
    });
    final_.write(row, n, y.data());
    if (compute_.observer != nullptr && norm_name == "output_norm.weight") {
      const std::string_view head[] = {index_.find("output.weight") != nullptr ? "output.weight" : "token_embd.weight"};
      observe(compute_, head, {y.data(), n, hparams_.hidden, hparams_.hidden});
    }
  }
}

}  // namespace quern
