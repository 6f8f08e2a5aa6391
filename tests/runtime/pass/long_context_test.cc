// Windowed and compressed attention at 16,384 tokens against the plain formula (deepseek-ai/DeepSeek-V4-Flash inference/model.py),
// written once more as loops in double: engines are known to go wrong at lengths that short tests never reach.

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "formats/arch/key_reader.h"
#include "formats/arch/stems.h"
#include "runtime/blocks/mixer_kinds.h"
#include "tests/runtime/golden_v4.h"

namespace quern {
namespace {

constexpr int64_t kLong = 16384;
constexpr int64_t kD = GoldenV4::kD, kHeads = GoldenV4::kH, kHd = GoldenV4::kHeadDim, kRope = 8;
using Row = std::vector<double>;

std::unique_ptr<Mixer> load_mixer(const TensorIndex& index, const Hparams& hparams, int64_t layer) {
  const LayerParams& params = hparams.layers[static_cast<size_t>(layer)];
  std::unique_ptr<Mixer> mixer = mixer_kind(params.attention).make();
  WeightList weights([&](std::string_view name) { return index.find(block_name(layer, name)) != nullptr; });
  mixer->list(hparams, params, weights);
  for (const BlockWeight& weight : weights.take()) {
    const LogicalTensor& found = *index.find(block_name(layer, weight.name));
    StoredMatrix matrix{&found, found.shape.n_rows(), found.shape.row_length(), std::vector<RawRows>(1)};
    index.source().fetch(index.number(found), 0, matrix.n_rows, matrix.tiles[0]);
    hold(index.source(), std::move(matrix), weight);
  }
  return mixer;
}

// The formula, for one layer and any query.
class Naive {
 public:
  Naive(MemorySource& source, const Hparams& hparams, int64_t layer, std::vector<float> x)
      : source_(source), h_(hparams), layer_(layer), params_(hparams.layers[static_cast<size_t>(layer)]), x_(std::move(x)) {
    frequencies_ = rope_frequencies(h_.ropes[params_.rope], {});
    for (int64_t t = 0; t < kLong; ++t) keys_.push_back(rotate(norm(product("attn_kv", input(t)), w("attn_kv_a_norm")), t, 1.0));
    if (params_.compress_ratio == 0) return;
    entries_ = compress("attn_compressor", kHd);
    if (params_.compress_ratio == 4) index_entries_ = compress("indexer_compressor", GoldenV4::kIndexDim);
  }

  Row attention(int64_t t) {
    const Row latent = norm(product("attn_q_a", input(t)), w("attn_q_a_norm"));
    const Row q = product("attn_q_b", latent);
    std::vector<Row> visible(keys_.begin() + std::max<int64_t>(0, t - params_.window + 1), keys_.begin() + t + 1);
    for (const int64_t b : chosen(t, latent)) visible.push_back(entries_[static_cast<size_t>(b)]);
    Row mixed;
    for (int64_t head = 0; head < kHeads; ++head) {
      Row of_head(q.begin() + head * kHd, q.begin() + (head + 1) * kHd);
      of_head = rotate(norm(of_head, {}), t, 1.0);
      Row out(static_cast<size_t>(kHd));
      double sum = std::exp(static_cast<double>(w("attn_sinks")[static_cast<size_t>(head)]));
      for (const Row& key : visible) {
        const double p = std::exp(dot(of_head, key) / std::sqrt(static_cast<double>(kHd)));
        sum += p;
        for (size_t i = 0; i < out.size(); ++i) out[i] += p * key[i];
      }
      for (double& v : out) v /= sum;
      const Row back = rotate(out, t, -1.0);
      mixed.insert(mixed.end(), back.begin(), back.end());
    }
    return project(mixed);
  }

 private:
  const std::vector<float>& w(const std::string& name) { return source_.values("blk." + std::to_string(layer_) + "." + name + ".weight"); }
  Row input(int64_t t) const { return {x_.begin() + t * kD, x_.begin() + (t + 1) * kD}; }
  static double dot(const Row& a, const Row& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }
  Row product(const std::string& name, const Row& v, size_t first_row = 0, size_t n_rows = 0) {
    const std::vector<float>& m = w(name);
    if (n_rows == 0) n_rows = m.size() / v.size();
    Row out;
    for (size_t o = first_row; o < first_row + n_rows; ++o) {
      out.push_back(std::inner_product(v.begin(), v.end(), m.begin() + static_cast<ptrdiff_t>(o * v.size()), 0.0));
    }
    return out;
  }
  Row norm(Row v, const std::vector<float>& weight) const {
    const double scale = 1.0 / std::sqrt(dot(v, v) / static_cast<double>(v.size()) + 1e-6);
    for (size_t i = 0; i < v.size(); ++i) v[i] *= scale * (weight.empty() ? 1.0 : static_cast<double>(weight[i]));
    return v;
  }
  Row rotate(Row v, int64_t position, double direction) const {
    for (size_t i = 0; i < frequencies_.size(); ++i) {
      double& a = v[v.size() - kRope + 2 * i];
      double& b = v[v.size() - kRope + 2 * i + 1];
      const double angle = direction * static_cast<double>(position) * frequencies_[i];
      const double rotated = a * std::cos(angle) - b * std::sin(angle);
      b = a * std::sin(angle) + b * std::cos(angle);
      a = rotated;
    }
    return v;
  }
  std::vector<Row> compress(const std::string& name, int64_t width) {
    const int64_t r = params_.compress_ratio;
    std::vector<Row> u, z, entries;
    for (int64_t t = 0; t < kLong; ++t) {
      u.push_back(product(name + "_kv", input(t)));
      z.push_back(product(name + "_gate", input(t)));
      for (size_t n = 0; n < z.back().size(); ++n)
        z.back()[n] += static_cast<double>(w(name + "_ape")[static_cast<size_t>(t % r) * z.back().size() + n]);
    }
    for (int64_t b = 0; b < kLong / r; ++b) {
      Row entry;
      for (int64_t n = 0; n < width; ++n) {
        double sum = 0.0, weighted = 0.0;
        const auto add = [&](int64_t t, int64_t channel) {
          const double p = std::exp(z[static_cast<size_t>(t)][static_cast<size_t>(channel)]);
          sum += p;
          weighted += p * u[static_cast<size_t>(t)][static_cast<size_t>(channel)];
        };
        for (int64_t i = 0; r == 4 && b > 0 && i < r; ++i) add((b - 1) * r + i, n);
        for (int64_t i = 0; i < r; ++i) add(b * r + i, r == 4 ? width + n : n);
        entry.push_back(weighted / sum);
      }
      entries.push_back(rotate(norm(entry, w(name + "_norm")), b * r, 1.0));
    }
    return entries;
  }
  std::vector<int64_t> chosen(int64_t t, const Row& latent) {
    if (entries_.empty()) return {};
    std::vector<int64_t> visible(static_cast<size_t>((t + 1) / params_.compress_ratio));
    std::iota(visible.begin(), visible.end(), 0);
    if (params_.compress_ratio != 4) return visible;
    const Row q = product("indexer.attn_q_b", latent), weights = product("indexer.proj", input(t));
    std::vector<double> scores;
    for (const int64_t b : visible) {
      double score = 0.0;
      for (int64_t head = 0; head < GoldenV4::kIndexHeads; ++head) {
        const Row of_head(q.begin() + head * GoldenV4::kIndexDim, q.begin() + (head + 1) * GoldenV4::kIndexDim);
        score += std::max(0.0, dot(rotate(of_head, t, 1.0), index_entries_[static_cast<size_t>(b)])) * weights[static_cast<size_t>(head)];
      }
      scores.push_back(score);
    }
    std::ranges::sort(visible, [&](int64_t a, int64_t b) { return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)]; });
    visible.resize(std::min(visible.size(), static_cast<size_t>(h_.indexer_top_k)));
    return visible;
  }
  Row project(const Row& mixed) {
    Row low;
    const size_t width = mixed.size() / GoldenV4::kG;
    for (size_t g = 0; g < GoldenV4::kG; ++g) {
      const Row group(mixed.begin() + static_cast<ptrdiff_t>(g * width), mixed.begin() + static_cast<ptrdiff_t>((g + 1) * width));
      const Row part = product("attn_output_a", group, g * GoldenV4::kRank, GoldenV4::kRank);
      low.insert(low.end(), part.begin(), part.end());
    }
    return product("attn_output_b", low);
  }

  MemorySource& source_;
  const Hparams& h_;
  int64_t layer_;
  const LayerParams& params_;
  std::vector<float> x_;
  std::vector<double> frequencies_;
  std::vector<Row> keys_, entries_, index_entries_;
};

TEST(LongContext, EveryKindOfLayerEqualsThePlainFormulaAt16kTokens) {
  GoldenV4 golden;
  golden.main.metadata().set("deepseek4.attention.indexer.top_k", uint32_t{37});
  const Hparams hparams = read_hparams(golden.main.metadata());
  std::mt19937 engine(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(kLong * kD)), out(x.size());
  for (float& v : x) v = normal(engine);
  const Compute compute{&golden.main};
  const TensorIndex index(golden.main);
  Workspace work;
  for (const int64_t layer : {0, 1, 2}) {
    const LayerParams& params = hparams.layers[static_cast<size_t>(layer)];
    const std::unique_ptr<Mixer> mixer = load_mixer(index, hparams, layer);
    const std::vector<double> frequencies = rope_frequencies(hparams.ropes[params.rope], {});
    const LayerContext context{hparams, layer, params, compute, hparams.ropes[params.rope], frequencies, work};
    const std::unique_ptr<LayerCache> cache = mixer->make_cache();
    for (int64_t t = 0; t < kLong; t += kQueryTile) {
      const Piece piece{0, kQueryTile, cache.get()};
      mixer->run(context, {x.data() + t * kD, kQueryTile, kD, kD}, std::span(&piece, 1), out.data() + t * kD);
    }
    Naive naive(golden.main, hparams, layer, x);
    for (const int64_t t : {0, 3, 150, 511, 512, 4095, 8190, 12345, 16383}) {
      const Row expected = naive.attention(t);
      for (int64_t i = 0; i < kD; ++i) {
        EXPECT_NEAR(static_cast<double>(out[static_cast<size_t>(t * kD + i)]), expected[static_cast<size_t>(i)], 2e-5)
            << "layer " << layer << " token " << t;
      }
    }
  }
}

TEST(Generation, CachesContinueAPrefill) {
  const GoldenV4 golden;
  const std::vector<int32_t> tokens = GoldenV4::tokens();
  Evaluator whole(golden.main, {});
  whole.forward({{tokens}}, no_progress());
  const std::vector<float> expected = logits_of(whole, OutputHead(whole));
  Evaluator pieces(golden.main, {.keep_caches = true});
  const OutputHead head(pieces);
  std::vector<float> logits;
  for (size_t first = 0; first < tokens.size();) {
    const size_t n = first == 0 ? 100 : std::min<size_t>(tokens.size() - first, first % 3 + 1);
    pieces.forward({{{tokens.begin() + static_cast<ptrdiff_t>(first), tokens.begin() + static_cast<ptrdiff_t>(first + n)}}}, no_progress());
    const std::vector<float> part = logits_of(pieces, head);
    logits.insert(logits.end(), part.begin(), part.end());
    first += n;
  }
  ASSERT_EQ(logits.size(), expected.size());
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(static_cast<double>(logits[i]), static_cast<double>(expected[i]), 2e-5);
}

}  // namespace
}  // namespace quern
