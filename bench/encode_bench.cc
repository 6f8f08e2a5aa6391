// Weights per second of every encoder, one thread, for every effort, on 64 rows of 4096 Gaussian weights, without and with importance.

#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "quantize/plain/encode.h"

namespace quern {
namespace {

constexpr int64_t kRows = 64;
constexpr int64_t kCols = 4096;

std::vector<float> gaussian(int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0.0, 0.02);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = static_cast<float>(normal(random));
  return values;
}

void encode_type(benchmark::State& state, DType dtype, bool weighted, Effort effort) {
  const std::vector<float> x = gaussian(kRows * kCols, 1);
  std::vector<float> importance;
  if (weighted) {
    importance = gaussian(kCols, 2);
    for (float& h : importance) h = std::exp(50.0f * h);
  }
  std::vector<std::byte> out(static_cast<size_t>(kRows * kCols / traits(dtype).block_weights * traits(dtype).block_bytes));
  for (auto _ : state) {
    encode_rows(dtype, x, kRows, kCols, importance, out, effort);
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["weights"] = benchmark::Counter(static_cast<double>(state.iterations() * kRows * kCols), benchmark::Counter::kIsRate);
  state.SetBytesProcessed(state.iterations() * kRows * kCols * static_cast<int64_t>(sizeof(float)));
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  for (int id = 0; id < 64; ++id) {
    const auto dtype = quern::find_dtype_by_gguf_id(id);
    if (!dtype || !quern::has_encoder(*dtype)) continue;
    for (const bool weighted : {false, true}) {
      for (const quern::Effort effort : {quern::Effort::kFast, quern::Effort::kDefault, quern::Effort::kBest}) {
        const std::string name =
            std::string(quern::name_of(*dtype)) + (weighted ? "/importance/" : "/uniform/") + std::string(quern::name_of(effort));
        benchmark::RegisterBenchmark(name.c_str(), quern::encode_type, *dtype, weighted, effort)->Unit(benchmark::kMillisecond);
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
