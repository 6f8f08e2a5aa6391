#include <map>

#include "formats/model/model_source.h"
#include "formats/statistics/statistics.h"
#include "tests/fuzz/fuzz.h"
#include "verify/fit/sensitivity.h"

namespace {

// A model of which only the list of tensors is known: one that may have any type, one of the keep-list.
class ListedModel final : public quern::ModelSource {
 public:
  ListedModel() : tensors_(2) {
    tensors_[0].name = "blk.0.ffn_down.weight";
    tensors_[0].shape = {4, 256};
    tensors_[0].layer = 0;
    tensors_[0].role = quern::Role::kDenseFfn;
    tensors_[0].source_type = quern::DType::BF16;
    tensors_[1] = tensors_[0];
    tensors_[1].name = "blk.0.ffn_norm.weight";
    tensors_[1].keep = quern::Keep::kF32;
  }
  const quern::Metadata& metadata() const noexcept override { return metadata_; }
  std::span<const quern::LogicalTensor> tensors() const noexcept override { return tensors_; }
  std::span<const quern::SourceFile> files() const noexcept override { return {}; }
  std::span<const std::string> notes() const noexcept override { return {}; }
  quern::Exactness exactness(size_t) const override { return {}; }
  uint64_t raw_bytes(size_t, int64_t) const override { return 0; }
  void fetch(size_t, int64_t, int64_t, quern::RawRows&) const override {}
  void decode(const quern::RawRows&, std::span<float>) const override {}
  bool can_copy(size_t, quern::DType) const override { return true; }
  void copy(const quern::RawRows&, quern::DType, std::span<std::byte>) const override {}
  uint64_t bytes_read() const noexcept override { return 0; }

 private:
  quern::Metadata metadata_;
  std::vector<quern::LogicalTensor> tensors_;
};

}  // namespace

// As the list of a folder of statistics and as the sensitivities that fit keeps.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ListedModel model;
  constexpr uint64_t kFileBytes = 4096;
  const std::string_view text = quern::test::input_text(data, size);
  quern::test::accept_errors([&] {
    const auto list = quern::statistics_list_from_json(text, "folder", [](const std::filesystem::path& file) {
      QUERN_CHECK(file.parent_path() == "folder");
      return kFileBytes;
    });
    for (const auto& [weight, input] : list.by_weight) {
      for (const auto& [slice, place] : input->slices) QUERN_CHECK(place.offset <= kFileBytes);
    }
  });
  quern::test::accept_errors([&] {
    const quern::Sensitivities found = quern::sensitivities_from_json(text, model, "key");
    QUERN_CHECK(quern::expected_losses(found).size() == model.tensors().size());
  });
  return 0;
}
