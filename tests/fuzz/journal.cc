#include "convert/fill/journal.h"

#include "convert/parts/part_index.h"
#include "tests/fuzz/fuzz.h"

namespace {

// Two tensors, of which one has slices and is read in chunks of 2 rows, as two outputs.
quern::Plan small_plan() {
  quern::Plan plan;
  plan.sources = {{"s", 1, 1, "f"}};
  plan.tensors.resize(2);
  plan.tensors[0].name = "a";
  plan.tensors[0].shape = {4, 3, 32};
  plan.tensors[0].n_slices = 4;
  plan.tensors[0].chunk_rows = 2;
  plan.tensors[1].name = "b";
  plan.tensors[1].shape = {8};
  for (const quern::DType type : {quern::DType::F32, quern::DType::Q8_0}) {
    quern::PlannedOutput output;
    output.mix = output.label = output.stem = quern::name_of(type);
    for (const quern::PlannedTensor& tensor : plan.tensors) {
      quern::Placement placement;
      placement.type = tensor.shape.rank() == 3 ? type : quern::DType::F32;
      placement.size_bytes = quern::tensor_size_bytes(placement.type, tensor.shape);
      output.tensor_bytes += placement.size_bytes;
      output.tensors.push_back(placement);
    }
    output.files = {{output.stem + ".gguf", 4096, 0, 0, plan.tensors.size()}};
    plan.outputs.push_back(std::move(output));
  }
  return plan;
}

}  // namespace

// As the records of a journal of this plan, as a whole journal, and as the index of a part. Figures of tensors are in both.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const quern::Plan plan = small_plan();
  static const std::string header = quern::journal_header(plan) + "\n", id = "id";
  const std::string_view text = quern::test::input_text(data, size);
  for (const std::string& journal : {header + std::string(text), std::string(text)}) {
    const quern::JournalReading reading = quern::read_journal(plan, journal);
    if (!reading.begun) continue;
    QUERN_CHECK(reading.begun->n_chunks <= quern::Chunks(plan).count() && reading.begun->journal_bytes <= journal.size());
    QUERN_CHECK(reading.begun->outputs.size() == plan.outputs.size());
  }
  quern::test::accept_errors([&] {
    std::vector<quern::TensorFigures> figures(plan.tensors.size());
    std::map<quern::Unit, quern::PartialFigures> partial;
    const quern::PartIndex index = quern::part_index_from_json(plan, id, text, figures, partial);
    QUERN_CHECK(index.sections.size() == plan.outputs.size());
  });
  return 0;
}
