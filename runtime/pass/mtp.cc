#include "runtime/pass/mtp.h"

#include <algorithm>

#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "runtime/math/vector_math.h"

namespace quern {
namespace {

StoredMatrix fetch_matrix(const TensorIndex& index, const LogicalTensor& tensor) {
  StoredMatrix matrix{&tensor, tensor.shape.n_rows(), tensor.shape.row_length(), {}};
  for (const RowTile& tile : tile_rows(tensor, index.number(tensor), 0, matrix.n_rows)) {
    index.source().fetch(tile.tensor, tile.first_row, tile.n_rows, matrix.tiles.emplace_back());
  }
  return matrix;
}

}  // namespace

MtpEvaluator::MtpEvaluator(const ModelSource& source, const EvalOptions& options, MtpInput input) : block_(source, options), input_(input) {
  const Hparams& h = block_.hparams();
  prefix_ = block_name(h.n_layers, "nextn.");
  if (h.n_mtp_layers == 0 || block_.index().find(prefix_ + "eh_proj.weight") == nullptr) {
    throw Error(ErrorKind::kUnsupported, "the model holds no MTP block");
  }
}

OutputHead MtpEvaluator::head() const {
  return OutputHead(
      block_, block_.index().find(prefix_ + "shared_head_head.weight") != nullptr ? prefix_ + "shared_head_head.weight" : "output.weight");
}

void MtpEvaluator::run(const Evaluator& main, std::span<const Sequence> sequences, Progress& progress) {
  std::vector<Sequence> shifted;
  for (const Sequence& sequence : sequences) {
    if (sequence.tokens.size() < 3) throw Error(ErrorKind::kUsage, "MTP needs sequences of at least 3 tokens");
    shifted.push_back({{sequence.tokens.begin() + 1, sequence.tokens.end()}, sequence.rounded});
  }
  block_.start(std::move(shifted));
  block_.embed();
  combine(main, sequences);
  block_.run_layers(block_.hparams().n_layers, block_.hparams().n_layers + 1, progress);
  block_.finish(prefix_ + "shared_head_norm.weight");
}

void MtpEvaluator::combine(const Evaluator& main, std::span<const Sequence> sequences) {
  const Hparams& h = block_.hparams();
  if (main.hparams().state_width() != h.state_width()) throw Error(ErrorKind::kFormat, "main model and MTP block differ in width");
  const auto values = [&](const char* name, const Shape& shape) {
    return decode_all(block_.index().source(), fetch_matrix(block_.index(), block_.index().get(prefix_ + name, shape)));
  };
  const std::vector<float> embedding_norm = values("enorm.weight", Shape{h.hidden}), state_norm = values("hnorm.weight", Shape{h.hidden});
  const StoredMatrix projection =
      fetch_matrix(block_.index(), block_.index().get(prefix_ + "eh_proj.weight", Shape{h.hidden, 2 * h.hidden}));
  const int64_t width = h.state_width(), n_streams = h.n_streams;
  std::vector<float> embedding, state, pairs, combined;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto length = static_cast<int64_t>(sequences[s].tokens.size()) - 1;
    for (int64_t t = 0; t < length; t += kQueryTile) {
      const int64_t n = std::min(kQueryTile, length - t), row = block_.first_rows()[s] + t;
      embedding.resize(static_cast<size_t>(n * width));
      state.resize(static_cast<size_t>(n * width));
      pairs.resize(static_cast<size_t>(2 * n * width));
      combined.resize(static_cast<size_t>(n * width));
      block_.states().read(row, n, embedding.data());
      (n_streams > 1 || input_ == MtpInput::kBeforeNorm ? main.states() : main.final_states())
          .read(main.first_rows()[s] + t, n, state.data());
      for (int64_t i = 0; i < n * n_streams; ++i) {
        float* pair = pairs.data() + 2 * i * h.hidden;
        rms_norm(embedding.data() + i * h.hidden, embedding_norm.data(), h.hidden, h.norm_eps, pair);
        rms_norm(state.data() + i * h.hidden, state_norm.data(), h.hidden, h.norm_eps, pair + h.hidden);
      }
      linear(block_.compute(), projection, Rows{pairs.data(), n * n_streams, 2 * h.hidden, 2 * h.hidden}, combined.data(), h.hidden);
      block_.set_states(row, n, combined.data());
    }
  }
}

}  // namespace quern
