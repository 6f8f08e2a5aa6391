// Operations against examples worked out from their definitions and against naive loops.

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/blocks/attention.h"
#include "runtime/blocks/compressor.h"
#include "runtime/blocks/hyper_connection.h"
#include "runtime/blocks/rope.h"
#include "runtime/blocks/routing.h"
#include "runtime/math/vector_math.h"
#include "tests/runtime/random_floats.h"

namespace quern {
namespace {

void expect_near(std::span<const float> values, std::vector<double> expected, double tolerance) {
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(static_cast<double>(values[i]), expected[i], tolerance) << "element " << i;
}

TEST(Rope, RotatesAdjacentPairsAndHalves) {
  for (const auto& [pairing, expected] :
       {std::pair{RopePairing::kAdjacent, std::vector<double>{-1.2722325, -1.8388650, 2.8786681, 4.0881866}},
        std::pair{RopePairing::kHalves, std::vector<double>{-1.4133525, 1.8791181, -2.8288575, 4.0581914}}}) {
    const RopeParams rope{.pairing = pairing, .n_dims = 4};
    const RopeTable table(rope, rope_frequencies(rope, {}), 0, 4);
    std::vector<float> x = {1, 2, 3, 4};
    table.rotate(x.data(), 3);
    expect_near(x, expected, 1e-6);
    table.rotate_back(x.data(), 3);
    expect_near(x, {1, 2, 3, 4}, 1e-6);
  }
}

TEST(Rope, YarnOfDeepSeekV3) {
  const RopeParams rope{.n_dims = 64, .factor = 40, .yarn = true, .original_context = 4096};
  const std::vector<double> f = rope_frequencies(rope, {});
  EXPECT_NEAR(f[10], 5.623413252e-2, 1e-11);
  EXPECT_NEAR(f[11], 3.900692657e-2, 1e-11);
  EXPECT_NEAR(f[16], 5.5e-3, 1e-12);
  EXPECT_NEAR(f[22], 1.778279410e-4, 1e-13);
  EXPECT_NEAR(f[31], 3.333803580e-6, 1e-15);
}

TEST(Rope, YarnOfGptOssKeepsUnroundedBounds) {
  RopeParams rope{.pairing = RopePairing::kHalves,
                  .n_dims = 64,
                  .freq_base = 150000,
                  .factor = 32,
                  .yarn = true,
                  .original_context = 4096,
                  .truncate = false};
  std::vector<double> f = rope_frequencies(rope, {});
  EXPECT_NEAR(f[9], 3.170570e-2, 1e-8);
  EXPECT_NEAR(f[12], 6.794959e-3, 1e-9);
  EXPECT_NEAR(f[17], 1.293187e-4, 1e-10);
  rope.truncate = true;
  f = rope_frequencies(rope, {});
  EXPECT_NEAR(f[9], 3.162075e-2, 1e-8);
  EXPECT_NEAR(f[17], 2.279478e-4, 1e-10);
}

TEST(Rope, YarnOfKimiAndDeepSeekV4) {
  const RopeParams kimi{
      .n_dims = 64, .freq_base = 50000, .factor = 64, .yarn = true, .original_context = 4096, .beta_fast = 1, .beta_slow = 1};
  std::vector<double> f = rope_frequencies(kimi, {});
  EXPECT_NEAR(f[18], 2.274204e-3, 1e-9);
  EXPECT_NEAR(f[20], 1.807023e-5, 1e-11);
  const RopeParams v4{.n_dims = 64, .freq_base = 160000, .factor = 16, .yarn = true, .original_context = 65536};
  f = rope_frequencies(v4, {});
  EXPECT_NEAR(f[1], 0.687656022, 1e-9);
  EXPECT_NEAR(f[15], 3.635538584e-3, 1e-12);
  EXPECT_NEAR(f[20], 2.969777783e-4, 1e-13);
  EXPECT_NEAR(f[31], 5.680529037e-7, 1e-16);
}

TEST(Norm, DividesByTheRootMeanSquare) {
  std::vector<float> x = {3, 4}, weight = {1, 2}, out(2);
  rms_norm(x.data(), weight.data(), 2, 0.0, out.data());
  expect_near(out, {3 / std::sqrt(12.5), 8 / std::sqrt(12.5)}, 1e-6);
}

struct Routed {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Routed routed(const RoutingParams& routing, std::vector<float> logits, std::vector<float> bias = {}) {
  Routed result{std::vector<int32_t>(static_cast<size_t>(routing.n_used)), std::vector<float>(static_cast<size_t>(routing.n_used))};
  route(routing, logits, bias, {result.experts.data(), result.weights.data()});
  return result;
}

TEST(Routing, DeepSeekV3PicksGroupsByTheirTwoBestBiasedScores) {
  const RoutingParams routing{.n_experts = 8,
                              .n_used = 3,
                              .gating = Gating::kSigmoid,
                              .n_groups = 4,
                              .n_groups_used = 2,
                              .group_top_two = true,
                              .normalize = true,
                              .scale = 2.5};
  const Routed r = routed(routing, {.2f, -.4f, 1.1f, .9f, 2, -3, .3f, .1f}, {.05f, 0, -.30f, .10f, -.55f, 0, .40f, .02f});
  EXPECT_EQ(r.experts, (std::vector<int32_t>{6, 3, 7}));
  expect_near(r.weights, {.7932662, .9817731, .7249607}, 1e-6);
}

TEST(Routing, DeepSeekV2PicksGroupsByTheirBestProbability) {
  const RoutingParams routing{.n_experts = 8, .n_used = 3, .n_groups = 4, .n_groups_used = 2, .scale = 16};
  const Routed r = routed(routing, {.2f, -.4f, 1.1f, .9f, 2, -3, .3f, .1f});
  EXPECT_EQ(r.experts, (std::vector<int32_t>{4, 2, 3}));
  expect_near(r.weights, {6.8538696, 2.7865754, 2.2814550}, 1e-5);
}

TEST(Routing, RejectedGroupsCanNeverBeChosen) {
  const RoutingParams routing{
      .n_experts = 8, .n_used = 3, .gating = Gating::kSigmoid, .n_groups = 4, .n_groups_used = 2, .group_top_two = true};
  const std::vector<float> logits(8, 0.0f);  // probability 0.5 each: choices are set by the bias alone
  EXPECT_EQ(routed(routing, logits, {.4f, -.7f, .3f, -.6f, -.45f, -.46f, -.47f, -.48f}).experts, (std::vector<int32_t>{0, 2, 3}));
}

TEST(Routing, GptOssTakesTheSoftmaxOfTheSelectedLogits) {
  const RoutingParams oss{.n_experts = 6, .n_used = 4, .gating = Gating::kSoftmaxOfSelected};
  const Routed r = routed(oss, {.1f, 2, -1, 1.5f, .7f, 0});
  EXPECT_EQ(r.experts, (std::vector<int32_t>{1, 3, 4, 0}));
  expect_near(r.weights, {.4929433, .2989852, .1343427, .0737288}, 1e-6);
  const RoutingParams mixtral{.n_experts = 6, .n_used = 2, .normalize = true};
  expect_near(routed(mixtral, {.1f, 2, -1, 1.5f, .7f, 0}).weights, {.6224593, .3775407}, 1e-6);
}

TEST(Routing, DeepSeekV4TakesRootsOfSoftplus) {
  const RoutingParams routing{.n_experts = 8, .n_used = 3, .gating = Gating::kSqrtSoftplus, .normalize = true, .scale = 1.5};
  const std::vector<float> logits = {1.2f, -.4f, .3f, 2.5f, -1, .9f, -3, 0};
  const Routed r = routed(routing, logits, {0, .6f, -.2f, -.9f, .5f, .05f, 1.5f, -.1f});
  EXPECT_EQ(r.experts, (std::vector<int32_t>{6, 1, 0}));
  expect_near(r.weights, {0.154047512, 0.500562387, 0.845390102}, 1e-6);
  EXPECT_EQ(routed(routing, logits).experts, (std::vector<int32_t>{3, 0, 5}));
  std::vector<int32_t> experts(3);
  std::vector<float> weights(3);
  route_to(routing, logits, std::vector<int32_t>{6, 2, 4}, {experts.data(), weights.data()});
  expect_near(weights, {0.193986726, 0.813447716, 0.492565558}, 1e-6);
}

TEST(Routing, TiesGoToTheLowerIndex) {
  EXPECT_EQ(routed({.n_experts = 4, .n_used = 2}, {1, 1, 1, 1}).experts, (std::vector<int32_t>{0, 1}));
}

TEST(HyperConnection, SinkhornOfTheSpecification) {
  std::vector<double> a = {0.5, -1, 2, 0, 1.5, 0.25, -0.5, 1, -2, 0.75, 0, 3, 0, 0, -1, -0.25};
  std::vector<double> two = a;
  sinkhorn(two, 4, 2, 1e-6);
  EXPECT_NEAR(two[0], .16515203, 1e-8);
  EXPECT_NEAR(two[11], .64814558, 1e-8);
  sinkhorn(a, 4, 20, 1e-6);
  const std::vector<double> expected = {.15913314, .05574837, .73837244, .04674509, .53087413, .23879727, .07438467, .15594293,
                                        .00951751, .23370445, .07279860, .68397840, .30047421, .47174891, .11444329, .11333258};
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(a[i], expected[i], 1e-8);
  for (size_t k = 0; k < 4; ++k) EXPECT_NEAR(a[k] + a[4 + k] + a[8 + k] + a[12 + k], 0.999999, 2e-9);  // 19 iterations give another row sum
  EXPECT_NEAR(a[4] + a[5] + a[6] + a[7], 0.99999900, 1e-8);
}

TEST(HyperConnection, ReadsAndWritesStreams) {
  const std::vector<float> mixes = {.3f,  -.7f, 1.2f, 0, -.4f, .9f,  .1f, -1.5f, .5f, -1, 2,  0,
                                    1.5f, .25f, -.5f, 1, -2,   .75f, 0,   3,     0,   0,  -1, -.25f};
  const std::vector<float> base(24, 0.0f), scale(3, 1.0f);
  const HyperMix mix = hyper_mix(mixes, 1.0, {base, scale}, 4, 20, 1e-6);
  EXPECT_NEAR(mix.pre[0], .574443517, 1e-7);
  EXPECT_NEAR(mix.pre[3], .500001, 1e-9);
  EXPECT_NEAR(mix.post[1], 1.421899005, 1e-7);
  EXPECT_NEAR(mix.post[3], .364851048, 1e-7);
  std::vector<float> x = {1, -2, .5f, .25f, -1.5f, 3, 2, 0}, y(2);
  hyper_read(x.data(), mix.pre, 2, y.data());
  expect_near(y, {.587563455, 1.239643624}, 1e-6);
  const std::vector<float> f = {.7f, -.3f};
  hyper_write(x.data(), f.data(), mix, 2);
  expect_near(x, {1.573079641, -.397782617, 1.763417452, .222746235, 1.630224316, -1.554740435, -.419190157, 1.887975449}, 1e-6);
}

// Keys and values of a test as a kernel multiplies them.
struct PackedKeys {
  FloatBuffer memory;
  KeySegment segment;

  PackedKeys(const ProductKernel& kernel, const std::vector<float>& keys, int64_t d, const std::vector<float>& values, int64_t dv) {
    const auto n = static_cast<int64_t>(keys.size()) / d;
    float* out = memory.resize(packed_floats(n, d) + packed_floats(dv, n));
    segment.keys = kernel.pack_weights({keys.data(), n, d, d}, out);
    segment.values = kernel.pack_columns({values.data(), n, dv, dv}, out + packed_floats(n, d));
    segment.count = n;
  }
};

TEST(Attention, SinkTakesPartInTheDenominatorOnly) {
  // Keys and query of one dimension with product 1, 2, 0.5; values are unit vectors, so the output is the probabilities.
  const ProductKernel& kernel = product_kernel(Arithmetic::kFloat);
  const PackedKeys keys(kernel, {1, 2, .5f}, 1, {1, 0, 0, 0, 1, 0, 0, 0, 1}, 3);
  const float q = 1.0f, sink = 1.5f;
  FloatBuffer scratch;
  std::vector<float> out(3);
  attend(kernel, {1, 3, 1.0, &sink}, {{&q, 1, 1, 1}, 2}, std::span(&keys.segment, 1), scratch, out.data(), 3);
  expect_near(out, {.1674051, .4550542, .1015363}, 1e-6);
  attend(kernel, {1, 3, 1.0, nullptr}, {{&q, 1, 1, 1}, 2}, std::span(&keys.segment, 1), scratch, out.data(), 3);
  expect_near(out, {.2312239, .6285317, .1402444}, 1e-6);
}

TEST(Attention, WindowedPanelsEqualTheNaiveFormula) {
  const int64_t n = 100, d = 24, dv = 20, window = 37;
  const std::vector<float> q = random_floats(static_cast<size_t>(n * d), 1), k = random_floats(static_cast<size_t>(n * d), 2),
                           v = random_floats(static_cast<size_t>(n * dv), 3);
  for (const Arithmetic arithmetic : {Arithmetic::kPlain, Arithmetic::kFloat, fastest_arithmetic()}) {
    const ProductKernel& kernel = product_kernel(arithmetic);
    const PackedKeys keys(kernel, k, d, v, dv);
    FloatBuffer scratch;
    std::vector<float> out(static_cast<size_t>(n * dv));
    for (int64_t first = 0; first < n; first += kPanelWidth) {
      const int64_t n_queries = std::min(kPanelWidth, n - first);
      const KeySegment seen = causal_segment(keys.segment, n, window, first, n_queries);
      attend(kernel, {d, dv, 0.2, nullptr}, {{q.data() + first * d, n_queries, d, d}, first}, std::span(&seen, 1), scratch,
             out.data() + first * dv, dv);
    }
    for (int64_t t = 0; t < n; ++t) {
      std::vector<double> p;
      double sum = 0.0;
      for (int64_t j = std::max<int64_t>(0, t - window + 1); j <= t; ++j) {
        double s = 0.0;
        for (int64_t i = 0; i < d; ++i)
          s += static_cast<double>(q[static_cast<size_t>(t * d + i)]) * static_cast<double>(k[static_cast<size_t>(j * d + i)]);
        sum += p.emplace_back(std::exp(0.2 * s));
      }
      for (int64_t i = 0; i < dv; ++i) {
        double expected = 0.0;
        for (size_t j = 0; j < p.size(); ++j) {
          const auto key = static_cast<size_t>(std::max<int64_t>(0, t - window + 1)) + j;
          expected += p[j] / sum * static_cast<double>(v[key * static_cast<size_t>(dv) + static_cast<size_t>(i)]);
        }
        EXPECT_NEAR(static_cast<double>(out[static_cast<size_t>(t * dv + i)]), expected, 1e-5);
      }
    }
  }
}

TEST(Compressor, EntriesDoNotDependOnHowTokensArrive) {
  const CompressorShape shape{.ratio = 4, .width = 8, .overlap = true, .norm_eps = 1e-6};
  const RopeParams rope{.n_dims = 4};
  const std::vector<double> frequencies = rope_frequencies(rope, {});
  const std::vector<float> kv = random_floats(30 * 16, 1), gate = random_floats(30 * 16, 2), bias = random_floats(4 * 16, 3), norm(8, 1.0f);
  Compressor whole(shape), pieces(shape);
  whole.append(kv, gate, bias, norm, rope, frequencies);
  ASSERT_EQ(whole.n_entries(), 7);
  for (size_t first = 0; first < 30; first += 3) {
    pieces.append(std::span(kv).subspan(first * 16, 48), std::span(gate).subspan(first * 16, 48), bias, norm, rope, frequencies);
  }
  EXPECT_TRUE(std::equal(whole.entries(), whole.entries() + 7 * 8, pieces.entries()));
  EXPECT_EQ(whole.n_visible(2), 0);
  EXPECT_EQ(whole.n_visible(3), 1);
}

TEST(Indexer, KeepsTheBestAndBreaksTiesByIndex) {
  std::vector<uint8_t> visible(6 * kPanelWidth, 9);
  keep_best(std::vector<double>{0, 3, 0, 5, 0, -1}, 4, visible.data());
  std::vector<int> kept;
  for (size_t i = 0; i < 6; ++i) kept.push_back(visible[i * kPanelWidth]);
  EXPECT_EQ(kept, (std::vector<int>{1, 1, 1, 1, 0, 0}));
}

}  // namespace
}  // namespace quern
