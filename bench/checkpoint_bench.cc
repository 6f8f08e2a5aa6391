// Weights per second out of a checkpoint, per encoding and transform, one thread: bytes from the page cache to floats, and to blocks
// where no floats are needed. Random codes, 1024 rows of 7168 weights.

#include <benchmark/benchmark.h>

#include <string>

#include "formats/checkpoint/checkpoint_source.h"
#include "tests/formats/builders.h"

namespace quern {
namespace {

constexpr int64_t kRows = 1024;
constexpr int64_t kCols = 7168;
constexpr int64_t kChunkWeights = 128 * kCols;

// Random bytes without the codes of NaN and infinity: no exponent is all ones.
test::Bytes random_bytes(uint64_t size) {
  test::Bytes bytes(size);
  uint64_t state = 1;
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    byte = static_cast<std::byte>(state >> 40) & std::byte{0xBB};
  }
  return bytes;
}

TensorRule whole(const std::string& stored, const std::string& name) {
  TensorRule rule;
  rule.stored = stored;
  rule.name = name;
  rule.shape = {kRows, kCols};
  return rule;
}

CheckpointSource make_source(const test::TempDir& dir) {
  test::SafetensorsBuilder file;
  ArchRules rules;
  for (const DType dtype : {DType::F32, DType::BF16, DType::F16}) {
    const std::string name(name_of(dtype));
    file.add(name, dtype, {kRows, kCols}, random_bytes(tensor_size_bytes(dtype, {kRows, kCols})));
    rules.rules.push_back(whole(name, name));
  }
  file.add("fp8.weight", DType::F8_E4M3, {kRows, kCols}, random_bytes(kRows * kCols));
  file.add("fp8.scale", DType::F8_E8M0, {kRows / 128, kCols / 128}, test::Bytes(kRows / 128 * kCols / 128, std::byte{120}));
  file.add("fp4.weight", DType::I8, {kRows, kCols / 2}, random_bytes(kRows * kCols / 2));
  file.add("fp4.scale", DType::F8_E8M0, {kRows, kCols / 32}, test::Bytes(kRows * kCols / 32, std::byte{120}));
  rules.rules.push_back(whole("fp8.weight", "FP8"));
  rules.rules.push_back(whole("fp4.weight", "FP4"));
  rules.rules.push_back(whole("BF16", "BF16 permuted"));
  rules.rules.back().transform = Transform::kPermuteHeads;
  rules.rules.back().n_head = kRows / 128;
  rules.rules.push_back(whole("fp8.weight", "FP8 transposed heads"));
  rules.rules.back().transform = Transform::kSplitKeyB;
  rules.rules.back().n_head = rules.rules.back().shape[0] / 256;
  rules.rules.back().shape = {rules.rules.back().n_head, kCols, 128};
  rules.rules.back().nope_dim = rules.rules.back().value_dim = 128;
  test::write_bytes(dir / "model.safetensors", file.file());
  const ModelConfig config = ModelConfig::parse(R"({"quantization_config": {"weight_block_size": [128, 128]}})");
  return CheckpointSource(safetensors::Checkpoint(dir.path()), rules, config, Metadata());
}

int64_t chunk_rows(const LogicalTensor& tensor) { return kChunkWeights / tensor.shape.row_length(); }

// Calls step(raw) for the chunks of the whole tensor.
template <typename Step>
void for_each_chunk(const ModelSource& source, size_t tensor, Step step) {
  const int64_t n_rows = source.tensors()[tensor].shape.n_rows();
  const int64_t n = chunk_rows(source.tensors()[tensor]);
  RawRows raw;
  for (int64_t row = 0; row < n_rows; row += n) {
    source.fetch(tensor, row, std::min(n, n_rows - row), raw);
    step(raw);
  }
}

void count(benchmark::State& state, const LogicalTensor& tensor) {
  state.counters["weights"] =
      benchmark::Counter(static_cast<double>(state.iterations() * tensor.shape.n_elements()), benchmark::Counter::kIsRate);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(tensor.source_bytes));
}

void decode_tensor(benchmark::State& state, const ModelSource& source, size_t tensor) {
  const int64_t cols = source.tensors()[tensor].shape.row_length();
  std::vector<float> out(static_cast<size_t>(kChunkWeights));
  for (auto _ : state) {
    for_each_chunk(source, tensor, [&](const RawRows& raw) {
      source.decode(raw, std::span(out).first(static_cast<size_t>(raw.n_rows * cols)));
      benchmark::DoNotOptimize(out.data());
    });
  }
  count(state, source.tensors()[tensor]);
}

void copy_tensor(benchmark::State& state, const ModelSource& source, size_t tensor) {
  const DType type = source.tensors()[tensor].source_type;
  const uint64_t row_bytes = row_size_bytes(type, source.tensors()[tensor].shape.row_length());
  std::vector<std::byte> out(static_cast<uint64_t>(chunk_rows(source.tensors()[tensor])) * row_bytes);
  for (auto _ : state) {
    for_each_chunk(source, tensor, [&](const RawRows& raw) {
      source.copy(raw, type, std::span(out).first(static_cast<uint64_t>(raw.n_rows) * row_bytes));
      benchmark::DoNotOptimize(out.data());
    });
  }
  count(state, source.tensors()[tensor]);
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  const quern::test::TempDir dir;
  const quern::CheckpointSource source = quern::make_source(dir);
  for (size_t t = 0; t < source.tensors().size(); ++t) {
    const quern::LogicalTensor& tensor = source.tensors()[t];
    const auto add = [&](const std::string& what, auto run) {
      benchmark::RegisterBenchmark((tensor.name + what).c_str(), run, std::cref(source), t)->Unit(benchmark::kMillisecond);
    };
    add("/decode", quern::decode_tensor);
    if (source.can_copy(t, tensor.source_type)) add("/copy", quern::copy_tensor);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
