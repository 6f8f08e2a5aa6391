#include "runtime/pass/evaluator.h"

#include <algorithm>
#include <atomic>

#include "formats/arch/key_reader.h"
#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/model/model_kind.h"
#include "formats/types/decode.h"
#include "runtime/math/vector_math.h"

// The order of operations of a pass, and nothing else: what is read when is the layer reader's, what fits is the plan's, what a block
// computes is in runtime/blocks, and the routed experts have a class of their own.
//
// A layer runs in two halves. Batches of tokens pass its mixer and its dense networks one after the other, each batch with the caches of
// its sequences, which are closed where a sequence ends, so that only a few are ever open. In MoE layers the batches leave the inputs of
// the experts behind; when all have passed, experts run over all tokens, and a last walk over the batches adds what they gave.

namespace quern {

namespace {

constexpr int64_t kRowGrain = 16;

Hparams hparams_of(const ModelSource& source) {
  require_model(source);
  return read_hparams(source.metadata());
}

}  // namespace

Evaluator::Evaluator(const ModelSource& source, const EvalOptions& options)
    : source_(source),
      options_(options),
      hparams_(hparams_of(source)),
      index_(source),
      compute_{&source, &product_kernel(options.arithmetic), options.observer},
      reader_(hparams_, index_) {
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

void Evaluator::forward(std::vector<Sequence> sequences, Progress& progress, const RoutingObserver& observer) {
  start(std::move(sequences));
  embed();
  run_layers(0, hparams_.n_layers, progress, observer);
  finish();
}

void Evaluator::start(std::vector<Sequence> sequences) {
  const EvalPlan p = plan(sequences);
  spill_ = p.spill;
  if (caches_.empty() || caches_[0].size() != sequences.size()) {
    caches_.clear();
    caches_.resize(hparams_.layers.size());
    for (Caches& of_layer : caches_) of_layer.resize(options_.keep_caches ? sequences.size() : 0);
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
  batches_ = make_batches(sequences_, p.batch_tokens);
  work_ = Workspace();
  open_caches_.clear();
  idle_caches_.clear();
  experts_ = has_experts(hparams_) ? Experts(hparams_, n_rows_, p.expert_group_bytes, spill_) : Experts();
  reader_.start(p.prefetch_bytes);
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

void Evaluator::run_layers(int64_t first, int64_t end, Progress& progress, const RoutingObserver& observer) {
  uint64_t total = 0;
  for (int64_t layer = first; layer < end; ++layer) total += reader_.layer_bytes(layer);
  progress.begin("evaluating", total);
  reader_.report_to(&progress);
  if (first < end) reader_.request_block(first);
  for (int64_t layer = first; layer < end; ++layer) {
    try {
      const uint64_t taken = reader_.bytes_taken();
      progress.step("layer " + std::to_string(layer + 1) + "/" + std::to_string(end));
      run_layer(layer, layer + 1 == end, observer);
      progress.advance(reader_.layer_bytes(layer) - (reader_.bytes_taken() - taken));  // experts that no token chose
    } catch (...) {
      reader_.abandon();
      throw;
    }
  }
  progress.end();
  reader_.report_to(nullptr);
}

void Evaluator::run_layer(int64_t layer, bool last, const RoutingObserver& observer) {
  const LayerParams& params = hparams_.layers[static_cast<size_t>(layer)];
  const Block block = reader_.take_block(layer);
  const LayerContext context{hparams_, layer, params, compute_, hparams_.ropes[params.rope], frequencies_[params.rope], work_};
  const bool ask_early = params.moe && experts_.all_expected();
  if (ask_early) {
    for (int64_t e = 0; e < hparams_.routing.n_experts; ++e) reader_.request_expert(layer, e);
  }
  for (const Batch& batch : batches_) {
    throw_if_interrupted();
    run_batch(context, block, batch);
  }
  if (params.moe) {
    Routing routing = experts_.routing();
    if (observer) observer(layer, routing);
    if (!routing.run_experts) return reader_.abandon();  // with the experts' tiles that nobody will take
    experts_.run(context, block.moe, reader_, ask_early);
    if (!last) reader_.request_block(layer + 1);
    add_expert_outputs(context);
  } else if (!last) {
    reader_.request_block(layer + 1);
  }
}

LayerCache& Evaluator::cache_of(const LayerContext& context, const Mixer& mixer, size_t sequence) {
  std::unique_ptr<LayerCache>& cache =
      options_.keep_caches ? caches_[static_cast<size_t>(context.number)][sequence] : open_caches_[sequence];
  if (cache) return *cache;
  Caches& idle = idle_caches_[context.layer.attention];
  if (idle.empty()) {
    cache = mixer.make_cache();
  } else {
    cache = std::move(idle.back());
    idle.pop_back();
  }
  return *cache;
}

// The caches of sequences that end in this batch, emptied for the next ones.
void Evaluator::close_caches(const LayerContext& context, const Batch& batch) {
  for (const BatchPart& part : batch.parts) {
    if (part.first_token + part.n < static_cast<int64_t>(sequences_[part.sequence].tokens.size())) continue;
    const auto found = open_caches_.find(part.sequence);
    if (found == open_caches_.end()) continue;
    found->second->clear();
    idle_caches_[context.layer.attention].push_back(std::move(found->second));
    open_caches_.erase(found);
  }
}

std::vector<Piece> Evaluator::pieces_of(const Batch& batch) const {
  std::vector<Piece> pieces;
  for (const BatchPart& part : batch.parts) {
    pieces.push_back({first_rows_[part.sequence] + part.first_token - batch.first_row, part.n, nullptr, sequences_[part.sequence].rounded});
  }
  return pieces;
}

float* Evaluator::batch_states(const Batch& batch) {
  if (float* states = states_.in_memory(batch.first_row)) return states;
  float* states = work_.states.resize(batch.n * hparams_.state_width());
  states_.read(batch.first_row, batch.n, states);
  return states;
}

void Evaluator::put_back(const Batch& batch, const float* states) {
  if (states_.in_memory(batch.first_row) == nullptr) states_.write(batch.first_row, batch.n, states);
}

void Evaluator::run_batch(const LayerContext& context, const Block& block, const Batch& batch) {
  std::vector<Piece> pieces = pieces_of(batch);
  for (size_t i = 0; i < pieces.size(); ++i) pieces[i].cache = &cache_of(context, *block.mixer, batch.parts[i].sequence);
  float* states = batch_states(batch);
  run_mixer(context, block, batch, pieces, states);
  check_finite(batch, states, block_name(context.number, "attn_output"));
  run_feed_forward(context, block, batch, pieces, states);
  check_finite(batch, states, block_name(context.number, "ffn_down"));
  put_back(batch, states);
  close_caches(context, batch);
}

void Evaluator::run_mixer(const LayerContext& context, const Block& block, const Batch& batch, std::span<const Piece> pieces,
                          float* states) {
  const int64_t hidden = hparams_.hidden, width = hparams_.state_width();
  const std::vector<HyperMix> mixes = residual_mixes(context, block.mixer_residual, {states, batch.n, width, width}, pieces);
  float* input = work_.input.resize(batch.n * hidden);
  float* output = work_.output.resize(batch.n * hidden);
  read_states(hparams_, block.mixer_residual.norm, mixes, states, pieces, input);
  for (const Piece& piece : pieces) QUERN_CHECK(piece.n <= kQueryTile);
  block.mixer->run(context, {input, batch.n, hidden, hidden}, pieces, output);
  write_states(hparams_, mixes, output, pieces, states);
}

void Evaluator::run_feed_forward(const LayerContext& context, const Block& block, const Batch& batch, std::span<const Piece> pieces,
                                 float* states) {
  const int64_t hidden = hparams_.hidden, width = hparams_.state_width();
  std::vector<HyperMix> mixes = residual_mixes(context, block.ffn_residual, {states, batch.n, width, width}, pieces);
  float* input = work_.input.resize(batch.n * hidden);
  float* output = work_.output.resize(batch.n * hidden);
  read_states(hparams_, block.ffn_residual.norm, mixes, states, pieces, input);
  const Rows rows{input, batch.n, hidden, hidden};
  const auto apply = [&](const DenseFfn& ffn) {
    const FfnWeights weights = ffn.view();
    const FfnRows all{&weights, 0, batch.n, pieces, {}};
    ffn_block(compute_, work_, std::span(&all, 1), context.layer.activation, context.layer.clamp_shared, rows, output);
  };
  if (!context.layer.moe) {
    apply(block.dense);
    write_states(hparams_, mixes, output, pieces, states);
    return;
  }
  std::vector<int32_t> tokens;
  for (const BatchPart& part : batch.parts) {
    const auto begin = sequences_[part.sequence].tokens.begin() + part.first_token;
    tokens.insert(tokens.end(), begin, begin + part.n);
  }
  experts_.select(context, block.moe, batch.first_row, tokens, rows, pieces);
  if (block.moe.shared.empty()) {
    std::fill(output, output + batch.n * hidden, 0.0f);
  } else {
    apply(block.moe.shared);
  }
  experts_.keep(batch.first_row, batch.n, input, output, std::move(mixes));
}

void Evaluator::add_expert_outputs(const LayerContext& context) {
  for (const Batch& batch : batches_) {
    float* states = batch_states(batch);
    float* output = work_.output.resize(batch.n * hparams_.hidden);
    experts_.read_sum(batch.first_row, batch.n, output);
    write_states(hparams_, experts_.mixes(batch.first_row, batch.n), output, pieces_of(batch), states);
    check_finite(batch, states, block_name(context.number, "ffn_down_exps"));
    put_back(batch, states);
  }
}

void Evaluator::check_finite(const Batch& batch, const float* states, const std::string& tensor) const {
  const int64_t width = hparams_.state_width();
  std::atomic<int64_t> bad{batch.n};
  parallel_for(batch.n, kRowGrain, [&](int64_t begin, int64_t end) {
    const std::span<const float> part(states + begin * width, static_cast<size_t>((end - begin) * width));
    const int64_t found = find_nonfinite_block(DType::F32, std::as_bytes(part));
    if (found < 0) return;
    for (int64_t row = begin + found / width, seen = bad; row < seen && !bad.compare_exchange_weak(seen, row);) {
    }
  });
  if (bad == batch.n) return;
  const int64_t row = batch.first_row + bad;
  const auto after = std::ranges::upper_bound(first_rows_, row);
  const auto s = after - first_rows_.begin() - 1;
  throw Error(ErrorKind::kFormat, "the state after this product is not finite (sequence " + std::to_string(s) + ", token " +
                                      std::to_string(row - first_rows_[static_cast<size_t>(s)]) + ")")
      .tensor(tensor);
}

void Evaluator::finish(std::string_view norm_name) {
  const auto vector = [&](std::string_view name, int64_t n) { return decode_all(source_, reader_.read(index_.get(name, Shape{n}))); };
  const std::vector<float> norm = vector(norm_name, hparams_.hidden);
  std::vector<float> base, scale;
  StoredMatrix fn;
  if (hparams_.n_streams > 1) {
    base = vector("output_hc_base.weight", hparams_.n_streams);
    scale = vector("output_hc_scale.weight", 1);
    fn = reader_.read(index_.get("output_hc_fn.weight", Shape{hparams_.n_streams, hparams_.state_width()}));
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
