#include "formats/gguf/gguf_edit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "formats/base/error.h"
#include "tests/formats/builders.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::TempDir;

constexpr const char* kTemplate = "tokenizer.chat_template";

class GgufEdit : public testing::Test {
 protected:
  fs::path make(bool with_padding) {
    Metadata metadata;
    metadata.set("general.architecture", std::string("llama"));
    metadata.set(kTemplate, std::string("{{ messages }}"));
    if (with_padding) gguf::reserve_padding(metadata);
    const std::vector<TensorInfo> tensors = {{"a", DType::F32, {100, 64}, 0, 25600}, {"b", DType::F32, {3}, 0, 12}};
    Bytes file = gguf::serialize_header(metadata, tensors);
    const size_t begin = file.size();
    file.resize(begin + gguf::layout(tensors).blob_bytes);
    for (size_t i = begin; i < file.size(); ++i) file[i] = static_cast<std::byte>(i * 7);
    test::write_bytes(dir_ / "m.gguf", file);
    return dir_ / "m.gguf";
  }

  static gguf::Edit with_template(const fs::path& path, const std::string& text) {
    const gguf::Header header = gguf::read_header(InputFile(path));
    Metadata metadata = header.metadata;
    metadata.set(kTemplate, text);
    return gguf::plan_edit(header, metadata);
  }

  static Bytes data_of(const fs::path& path) {
    const Bytes all = read_file(path, 1 << 20);
    const uint64_t begin = gguf::read_header(InputFile(path)).data_offset;
    return {all.begin() + static_cast<ptrdiff_t>(begin), all.end()};
  }

  TempDir dir_;
};

TEST_F(GgufEdit, LeavesTensorsOfForeignTypesAsTheyAre) {
  const fs::path path = make(true);
  Bytes file = read_file(path, 1 << 20);
  const uint64_t begin = gguf::read_header(InputFile(path)).data_offset;
  const Bytes name = test::to_bytes("a");
  // "a": length 1, the name, two dimensions of eight bytes, the type.
  const Bytes pattern = {std::byte{1}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0},
                         std::byte{0}, std::byte{0}, std::byte{0}, name[0],      std::byte{2}};
  const auto at = std::search(file.begin(), file.end(), pattern.begin(), pattern.end());
  ASSERT_NE(at, file.end());
  at[9 + 4 + 16] = std::byte{144};
  test::write_bytes(path, file);
  const gguf::Header before = gguf::read_header(InputFile(path), gguf::ForeignTypes::kList);
  ASSERT_EQ(before.foreign.size(), 1U);
  Metadata metadata = before.metadata;
  metadata.set(kTemplate, std::string("{{ other }}"));
  const gguf::Edit edit = gguf::plan_edit(before, metadata);
  ASSERT_TRUE(edit.in_place);
  gguf::edit_in_place(path, edit);
  const gguf::Header after = gguf::read_header(InputFile(path), gguf::ForeignTypes::kList);
  EXPECT_EQ(after.metadata.get_string(kTemplate), "{{ other }}");
  EXPECT_EQ(after.foreign.at(0).type_id, 144);
  EXPECT_EQ(after.foreign.at(0).size_bytes, before.foreign.at(0).size_bytes);
  const Bytes all = read_file(path, 1 << 20);
  EXPECT_TRUE(std::equal(all.begin() + static_cast<ptrdiff_t>(begin), all.end(), file.begin() + static_cast<ptrdiff_t>(begin)));
}

TEST_F(GgufEdit, GrowsAndShrinksInPlaceWithinThePadding) {
  const fs::path path = make(true);
  const Bytes data = data_of(path);
  const uint64_t size = fs::file_size(path);
  for (const size_t length : {size_t{1}, size_t{5000}, size_t{16000}, size_t{31}, size_t{0}}) {
    const gguf::Edit edit = with_template(path, std::string(length, 'x'));
    ASSERT_TRUE(edit.in_place) << length;
    gguf::edit_in_place(path, edit);
    EXPECT_EQ(fs::file_size(path), size);
    EXPECT_EQ(data_of(path), data);
    const gguf::Header header = gguf::read_header(InputFile(path));
    EXPECT_EQ(header.metadata.get_string(kTemplate), std::string(length, 'x'));
    EXPECT_EQ(header.metadata.entries().back().first, gguf::kPaddingKey);
  }
}

TEST_F(GgufEdit, WhatDoesNotFitIsCopiedWithNewRoom) {
  const fs::path path = make(true);
  const Bytes data = data_of(path);
  const gguf::Edit edit = with_template(path, std::string(40000, 'x'));
  ASSERT_FALSE(edit.in_place);
  EXPECT_GT(edit.missing_bytes, 20000U);
  gguf::edit_by_copy(InputFile(path), path, edit, OutputFile::Overwrite::kAllow, no_progress());
  EXPECT_EQ(data_of(path), data);
  EXPECT_EQ(gguf::read_header(InputFile(path)).metadata.get_string(gguf::kPaddingKey).size(), gguf::kPaddingBytes);
}

TEST_F(GgufEdit, AFileWithoutPaddingShrinksInPlaceButDoesNotGrow) {
  const fs::path path = make(false);
  EXPECT_FALSE(with_template(path, std::string(500, 'x')).in_place);
  EXPECT_TRUE(with_template(path, "{{ MESSAGES }}").in_place);
}

TEST_F(GgufEdit, AFileWithoutTensorsIsAlwaysReplaced) {
  Metadata metadata;
  metadata.set(kTemplate, std::string("a"));
  test::write_bytes(dir_ / "head.gguf", gguf::serialize_header(metadata, {}));
  const gguf::Edit edit = with_template(dir_ / "head.gguf", std::string(100000, 'x'));
  ASSERT_TRUE(edit.in_place);
  gguf::edit_in_place(dir_ / "head.gguf", edit);
  EXPECT_EQ(gguf::read_header(InputFile(dir_ / "head.gguf")).metadata.get_string(kTemplate).size(), 100000U);
}

TEST_F(GgufEdit, AnInterruptedEditIsUndone) {
  const fs::path path = make(true);
  const Bytes before = read_file(path, 1 << 20);
  const gguf::Edit edit = with_template(path, "new");
  // What a crash leaves in the middle of the overwriting: the old header beside a file whose header is neither.
  test::write_bytes(fs::path(path) += ".header", std::span(before).first(edit.header.size()));
  Bytes torn = before;
  std::copy_n(edit.header.begin(), edit.header.size() / 2, torn.begin());
  test::write_bytes(path, torn);
  EXPECT_TRUE(gguf::restore_header(path));
  EXPECT_EQ(read_file(path, 1 << 20), before);
  EXPECT_FALSE(gguf::restore_header(path));
}

}  // namespace
}  // namespace quern
