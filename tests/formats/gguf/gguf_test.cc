#include "formats/gguf/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/base/error.h"
#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"
#include "tests/formats/header_bytes.h"

namespace quern::gguf {
namespace {

namespace fs = std::filesystem;
using test::append;
using test::Bytes;
using test::expect_every_byte_checked;
using test::floats_to_bytes;
using test::GgufBuilder;
using test::TempDir;
using test::to_bytes;

Header parse(const Bytes& file) { return parse_header(file, file.size()); }

// Writes the fields of a header one by one, right or wrong. pad() ends it.
class Raw {
 public:
  Raw(int64_t n_tensors, int64_t n_keys, uint32_t version = 3) { text("GGUF").num(version).num(n_tensors).num(n_keys); }

  template <typename T>
  Raw& num(T value) {
    append(bytes_, test::values_to_bytes(std::vector<T>{value}));
    return *this;
  }
  Raw& text(std::string_view raw) {
    append(bytes_, to_bytes(raw));
    return *this;
  }
  Raw& str(std::string_view value) { return num(uint64_t{value.size()}).text(value); }
  Raw& key(std::string_view name, uint32_t type) { return str(name).num(type); }
  Raw& tensor(std::string_view name, const std::vector<int64_t>& ne, int32_t type, uint64_t offset) {
    str(name).num(static_cast<uint32_t>(ne.size()));
    for (const int64_t dim : ne) num(dim);
    return num(type).num(offset);
  }
  Raw& pad(size_t alignment = 32, size_t blob_bytes = 0) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment + blob_bytes);
    return *this;
  }
  const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

GgufBuilder small_file() {
  GgufBuilder builder;
  builder.set("general.architecture", std::string("llama"))
      .set("tokens", std::vector<std::string>{"a", "", "ccc"})
      .set("flags", std::vector<bool>{true, false})
      .set("types", std::vector<int32_t>{1, -2})
      .set("eps", 1e-5F)
      .add("a", DType::F32, {2, 3}, floats_to_bytes({1, 2, 3, 4, 5, 6}))
      .add("b", DType::Q8_0, {2, 32}, Bytes(68, std::byte{7}))
      .add("c", DType::F16, {5}, Bytes(10, std::byte{9}));
  return builder;
}

TEST(GgufHeader, ReadsGoldenBytes) {
  // Laid out by hand: magic, version 3, one tensor, two keys; "k" = u32 7, "s" = "hi"; tensor "t" of ne [2, 1], F32 at offset 0.
  const Bytes file =
      to_bytes(std::string("GGUF\3\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 24) + std::string("\1\0\0\0\0\0\0\0k\4\0\0\0\7\0\0\0", 17) +
               std::string("\1\0\0\0\0\0\0\0s\x8\0\0\0\2\0\0\0\0\0\0\0hi", 23) +
               std::string("\1\0\0\0\0\0\0\0t\2\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 41) +
               std::string(23, '\0') + std::string("\0\0\x80\x3f\0\0\0\xc0", 8) + std::string(24, '\0'));
  ASSERT_EQ(file.size(), 160u);
  const Header header = parse(file);
  EXPECT_EQ(header.version, 3u);
  EXPECT_EQ(header.alignment, 32u);
  EXPECT_EQ(header.data_offset, 128u);
  EXPECT_EQ(header.metadata.get_int("k"), 7);
  EXPECT_EQ(header.metadata.get_string("s"), "hi");
  ASSERT_EQ(header.tensors.size(), 1u);
  EXPECT_EQ(header.tensors[0].name, "t");
  EXPECT_EQ(header.tensors[0].dtype, DType::F32);
  EXPECT_EQ(header.tensors[0].shape, (Shape{1, 2}));  // outermost first
  EXPECT_EQ(header.tensors[0].file_offset, 128u);
  EXPECT_EQ(header.tensors[0].size_bytes, 8u);

  GgufBuilder same;
  same.set("k", uint32_t{7}).set("s", std::string("hi")).add("t", DType::F32, {1, 2}, floats_to_bytes({1, -2}));
  EXPECT_EQ(same.file(), file);
}

TEST(GgufHeader, EveryValueTypeComesBack) {
  GgufBuilder builder;
  builder.set("u8", uint8_t{255}).set("i8", int8_t{-128}).set("u16", uint16_t{65535}).set("i16", int16_t{-32768});
  builder.set("u32", uint32_t{4294967295})
      .set("i32", int32_t{-2147483647})
      .set("f32", 1.5F)
      .set("bool", true)
      .set("str", std::string("\0x", 2));
  builder.set("u64", ~uint64_t{0}).set("i64", int64_t{-5}).set("f64", 1e300);
  builder.set("[u8]", std::vector<uint8_t>{1, 2}).set("[i8]", std::vector<int8_t>{-1}).set("[u16]", std::vector<uint16_t>{3});
  builder.set("[i16]", std::vector<int16_t>{-3}).set("[u32]", std::vector<uint32_t>{4, 5, 6}).set("[i32]", std::vector<int32_t>{-4});
  builder.set("[f32]", std::vector<float>{0.5F, -0.0F}).set("[bool]", std::vector<bool>{true, false, true});
  builder.set("[str]", std::vector<std::string>{"", "x"}).set("[u64]", std::vector<uint64_t>{~uint64_t{0}});
  builder.set("[i64]", std::vector<int64_t>{-7}).set("[f64]", std::vector<double>{2.5}).set("empty", std::vector<std::string>{});
  const Header header = parse(builder.file());
  EXPECT_EQ(header.metadata.entries(), builder.metadata().entries());  // order and types too
}

TEST(GgufHeader, WritingWhatWasReadGivesTheSameBytes) {
  for (const uint64_t alignment : {uint64_t{32}, uint64_t{64}, uint64_t{1}, uint64_t{4096}}) {
    GgufBuilder builder = small_file();
    if (alignment != 32) builder.set("general.alignment", static_cast<uint32_t>(alignment));
    const Bytes file = builder.file(alignment);
    const Header header = parse(file);
    EXPECT_EQ(header.alignment, alignment);
    const Bytes again = serialize_header(header.metadata, header.tensors, alignment);
    EXPECT_EQ(again, Bytes(file.begin(), file.begin() + static_cast<ptrdiff_t>(header.data_offset)));
    const TensorInfo& last = header.tensors.back();
    EXPECT_EQ(file[last.file_offset], std::byte{9});
    EXPECT_EQ(file[last.file_offset + 9], std::byte{9});
  }
}

TEST(GgufHeader, ReadsEveryTensorType) {
  for (int id = 0; id < 43; ++id) {
    const std::optional<DType> dtype = find_dtype_by_gguf_id(id);
    if (!dtype) continue;
    const Header header = parse(GgufBuilder().add_zeros("t", *dtype, {3, 256}).file());
    EXPECT_EQ(header.tensors[0].dtype, *dtype);
    EXPECT_EQ(header.tensors[0].size_bytes * 8, static_cast<uint64_t>(bits_per_weight(*dtype) * 3 * 256));
  }
}

TEST(GgufHeader, ReadsVersion2ScalarsAndFilesWithoutTensors) {
  EXPECT_EQ(parse(Raw(0, 0, 2).bytes()).version, 2u);
  EXPECT_EQ(parse(Raw(0, 0).pad().bytes()).data_offset, 32u);
  EXPECT_EQ(parse(Raw(1, 0).tensor("scalar", {}, 0, 0).pad(32, 32).bytes()).tensors[0].size_bytes, 4u);
}

TEST(GgufHeader, EveryPrefixThrows) {
  const Bytes good = small_file().file();
  const uint64_t data_offset = parse(good).data_offset;
  constexpr size_t kPadding = 22;  // of the last tensor, which need not be there
  for (size_t n = 0; n < good.size() - kPadding; ++n) {
    const Bytes cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(n));
    EXPECT_THROW(parse(cut), Error) << "prefix of " << n << " bytes";
    if (n + 32 < data_offset) {
      EXPECT_THROW(parse_header(cut, good.size()), Error) << n;
    }
  }
}

TEST(GgufHeader, EveryHeaderByteMatters) {
  const Bytes good = small_file().file();
  expect_every_byte_checked(good, parse(good).data_offset, [](const Bytes& bytes) { return parse(bytes); });
}

TEST(GgufHeader, RefusesOtherFilesAndVersions) {
  EXPECT_ERROR(parse(to_bytes("PK\3\4 and so on")), ErrorKind::kFormat, "does not begin with 'GGUF'");
  EXPECT_ERROR(parse(Raw(0, 0, 1).bytes()), ErrorKind::kUnsupported, "offset 4: GGUF version 1; only versions 2 and 3");
  EXPECT_ERROR(parse(Raw(0, 0, 4).bytes()), ErrorKind::kUnsupported, "GGUF version 4");
  EXPECT_ERROR(parse(Raw(0, 0, 0x03000000).bytes()), ErrorKind::kUnsupported, "big-endian");
}

TEST(GgufHeader, RefusesBadCounts) {
  EXPECT_ERROR(parse(Raw(-1, 0).bytes()), ErrorKind::kFormat, "offset 8: number of tensors is -1");
  EXPECT_ERROR(parse(Raw(0, -1).bytes()), ErrorKind::kFormat, "offset 16: number of metadata keys is -1");
  EXPECT_ERROR(parse(Raw(int64_t{1} << 62, 0).bytes()), ErrorKind::kFormat, "number of tensors is 4611686018427387904, at most 1048576");
  EXPECT_ERROR(parse(Raw(0, kMaxKeys + 1).bytes()), ErrorKind::kFormat, "number of metadata keys is 16385");
  EXPECT_ERROR(parse(Raw(100, 0).pad(32, 1000).bytes()), ErrorKind::kFormat, "offset 8: 100 tensors do not fit in the file");
  EXPECT_ERROR(parse(Raw(0, 100).pad(32, 1000).bytes()), ErrorKind::kFormat, "offset 16: 100 metadata keys do not fit in the file");
}

TEST(GgufHeader, RefusesBadStringsAndArrays) {
  const auto refuse = [](Raw& raw, std::string_view part) { EXPECT_ERROR(parse(raw.pad(32, 1000).bytes()), ErrorKind::kFormat, part); };
  refuse(Raw(0, 1).num(~uint64_t{0}), "metadata key of 18446744073709551615 bytes");
  refuse(Raw(0, 1).num(uint64_t{65536}), "metadata key of 65536 bytes, at most 65535");
  refuse(Raw(0, 1).num(uint64_t{60000}), "60000 bytes expected, ");
  refuse(Raw(0, 1).key("", 4), "offset 24: empty metadata key");
  refuse(Raw(0, 1).key("k", 8).num(~uint64_t{0}), "string of 18446744073709551615 bytes");
  refuse(Raw(0, 1).key("k", 8).num(uint64_t{5000}), "5000 bytes expected");
  refuse(Raw(0, 1).key("k", 9).num(uint32_t{4}).num(~uint64_t{0}), "metadata key 'k': 18446744073709551615 elements do not fit");
  refuse(Raw(0, 1).key("k", 9).num(uint32_t{12}).num(uint64_t{1} << 61), "elements do not fit");  // 8 * 2^61 wraps to 0
  refuse(Raw(0, 1).key("k", 9).num(uint32_t{8}).num(uint64_t{127}), "127 elements do not fit");
  refuse(Raw(0, 1).key("k", 13), "offset 33: metadata key 'k' has the unknown value type 13");
  refuse(Raw(0, 1).key("k", 9).num(uint32_t{13}).num(uint64_t{0}), "metadata key 'k' has the unknown element type 13");
  refuse(Raw(0, 1).key("k", 7).num(uint8_t{2}), "metadata key 'k' has the bool value 2");
  refuse(Raw(0, 2).key("k", 0).num(uint8_t{1}).key("k", 0).num(uint8_t{1}), "metadata key 'k' occurs twice");
  EXPECT_ERROR(parse(Raw(0, 1).key("k", 9).num(uint32_t{9}).num(uint64_t{0}).pad(32, 99).bytes()), ErrorKind::kUnsupported,
               "metadata key 'k' is an array of arrays");
}

// Readers that keep the length of a token in 32 bits, or in a signed number, take these for short ones.
TEST(GgufHeader, RefusesTokenLengthsOfEverySign) {
  for (const uint64_t length : {uint64_t{1} << 31, uint64_t{1} << 32, (uint64_t{1} << 32) + 1, uint64_t{1} << 63, ~uint64_t{0}}) {
    Raw raw(0, 1);
    raw.key("tokenizer.ggml.tokens", 9).num(uint32_t{8}).num(uint64_t{2}).str("a").num(length).text("b");
    EXPECT_ERROR(parse(raw.pad(32, 1000).bytes()), ErrorKind::kFormat,
                 "offset 78: string of " + std::to_string(length) + " bytes, at most ");
  }
}

TEST(GgufHeader, RefusesMoreArrayStringsThanAModelCouldNeed) {
  // Eight bytes each in the file, 32 in memory: a sparse file must not cost more memory than it is worth.
  const Bytes head = Raw(0, 1).key("k", 9).num(uint32_t{8}).num(kMaxArrayStrings + 1).bytes();
  EXPECT_ERROR(parse_header(head, uint64_t{1} << 40), ErrorKind::kFormat, "metadata key 'k': more than 4194304 strings in arrays");
}

TEST(GgufHeader, RefusesAHeaderOverTheLimitBeforeReadingIt) {
  TempDir dir;
  const Bytes head = Raw(0, 1).key("k", 9).num(uint32_t{0}).num(uint64_t{1} << 30).bytes();
  test::write_sparse(dir / "bomb.gguf", head, uint64_t{1} << 31);
  const InputFile file(dir / "bomb.gguf");
  EXPECT_ERROR(read_header(file), ErrorKind::kFormat, "bomb.gguf: offset 49: the header is larger than 268435456 bytes");
}

TEST(GgufHeader, RefusesBadAlignment) {
  const auto with = [](MetaValue value) {
    // The writer refuses these, so the key is renamed in the bytes.
    Bytes file = GgufBuilder().set("general.alignmenX", std::move(value)).add_zeros("t", DType::F32, {1}).file();
    std::string text(reinterpret_cast<const char*>(file.data()), file.size());
    text[text.find("alignmenX") + 8] = 't';
    return to_bytes(text);
  };
  EXPECT_NO_THROW(parse(with(uint32_t{32})));
  for (const uint32_t bad : {0U, 3U, 33U, 48U, ~0U}) {
    EXPECT_ERROR(parse(with(bad)), ErrorKind::kFormat, "general.alignment " + std::to_string(bad) + " is not a power of two");
  }
  EXPECT_ERROR(parse(with(uint64_t{32})), ErrorKind::kFormat, "general.alignment is not a u32");
  EXPECT_ERROR(parse(with(std::string("32"))), ErrorKind::kFormat, "general.alignment is not a u32");
  EXPECT_ERROR(parse(with(uint32_t{64})), ErrorKind::kFormat, "the file has ");
  EXPECT_ERROR(parse(with(uint32_t{1} << 31)), ErrorKind::kFormat, "(incomplete download?)");
}

TEST(GgufHeader, RefusesBadTensors) {
  const auto refuse = [](Raw& raw, std::string_view part, ErrorKind kind = ErrorKind::kFormat) {
    EXPECT_ERROR(parse(raw.pad(32, 4096).bytes()), kind, part);
  };
  refuse(Raw(1, 0).tensor(std::string(64, 'n'), {1}, 0, 0), "tensor name of 64 bytes, at most 63");
  refuse(Raw(1, 0).tensor("", {1}, 0, 0), "empty tensor name");
  refuse(Raw(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32), "tensor 't': the header names it twice");
  refuse(Raw(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0), "tensor 't': 5 dimensions, at most 4");
  refuse(Raw(1, 0).tensor("t", {0}, 0, 0), "tensor 't': dimension 0 is not positive");
  refuse(Raw(1, 0).tensor("t", {32, -1}, 0, 0), "tensor 't': dimension -1 is not positive");
  refuse(Raw(1, 0).tensor("t", {int64_t{1} << 32, int64_t{1} << 32}, 0, 0), "tensor 't': number of elements overflows 64 bits");
  refuse(Raw(1, 0).tensor("t", {int64_t{1} << 62}, 0, 0), "tensor 't': row size overflows 64 bits");
  refuse(Raw(1, 0).tensor("t", {int64_t{1} << 61, 2}, 0, 0), "overflows 64 bits");
  refuse(Raw(1, 0).tensor("t", {33}, 8, 0), "tensor 't': row length 33 is not a multiple of 32, the block size of Q8_0");
  refuse(Raw(1, 0).tensor("t", {128, 2}, 12, 0), "row length 128 is not a multiple of 256, the block size of Q4_K");
  const std::pair<int, const char*> foreign[] = {
      {4, "type Q4_2 (id 4) was removed from ggml; make the file again, as Q4_0"},
      {33, "type Q4_0_8_8 (id 33) was removed from ggml; make the file again, as Q4_0"},
      {36, "type id 36 is BitNet's I2_S, which only bitnet.cpp reads, or IQ4_NL_4_4, removed from ggml"},
      {15, "type Q8_K (id 15) is one that ggml computes with and no file holds"},
      {139, "type IQ4_K (id 139) is ik_llama.cpp's; only that program reads it"},
      {399, "type Q8_K_R8 (id 399) is ik_llama.cpp's"},
      {-1, "type id -1 is none of ggml or of a fork that we know"},
      {43, "type id 43 is none of ggml or of a fork that we know"},
      {0x7FFFFFFF, "type id 2147483647 is none of ggml"}};
  for (const auto& [id, why] : foreign)
    refuse(Raw(1, 0).tensor("t", {256}, id, 0), "tensor 't': " + std::string(why), ErrorKind::kUnsupported);
}

class GgufFiles : public testing::Test {
 protected:
  fs::path write(const std::string& name, const Bytes& bytes) {
    test::write_bytes(dir_ / name, bytes);
    return dir_ / name;
  }
  Header listed(const Bytes& bytes) { return read_header(InputFile(write("f.gguf", bytes)), ForeignTypes::kList); }

  TempDir dir_;
};

TEST_F(GgufFiles, ListsForeignTensorsWithTheRoomThatTheyTake) {
  // Each in its turn is foreign: between others, and the last one, which reaches to the end.
  const Bytes file = Raw(3, 0).tensor("a", {8}, 0, 0).tensor("b", {256, 2}, 144, 32).tensor("c", {8}, 0, 320).pad(32, 352).bytes();
  const Header header = listed(file);
  ASSERT_EQ(header.tensors.size(), 2U);
  ASSERT_EQ(header.foreign.size(), 1U);
  EXPECT_EQ(header.foreign[0].name, "b");
  EXPECT_EQ(header.foreign[0].type_id, 144);
  EXPECT_EQ(header.foreign[0].shape, (Shape{2, 256}));
  EXPECT_EQ(header.foreign[0].file_offset, header.data_offset + 32);
  EXPECT_EQ(header.foreign[0].size_bytes, 288U);
  EXPECT_EQ(serialize_header(header, header.metadata), Bytes(file.begin(), file.begin() + static_cast<ptrdiff_t>(header.data_offset)));
  const Header last = listed(Raw(1, 0).tensor("b", {256}, 4711, 0).pad(32, 100).bytes());
  EXPECT_EQ(last.foreign.at(0).size_bytes, 100U);
  EXPECT_ERROR(listed(Raw(1, 0).tensor("b", {256}, 144, 0).pad(32, 0).bytes()), ErrorKind::kFormat, "tensor 'b': data begins at byte ");
  EXPECT_ERROR(listed(Raw(2, 0).tensor("b", {256}, 144, 0).tensor("c", {8}, 0, 36).pad(32, 96).bytes()), ErrorKind::kFormat,
               "tensor 'c': data offset 36");
  EXPECT_ERROR(listed(Raw(2, 0).tensor("b", {256}, 144, 0).tensor("b", {8}, 0, 32).pad(32, 96).bytes()), ErrorKind::kFormat, "twice");
}

TEST_F(GgufFiles, SaysThatShardsWerePutTogetherByCat) {
  const Bytes one = small_file().file();
  Bytes two = one;
  append(two, one);
  const std::string begins = "put together by cat: the second begins at byte " + std::to_string(one.size());
  EXPECT_ERROR(read_header(InputFile(write("two.gguf", two))), ErrorKind::kFormat, begins);
  Bytes unpadded(one.begin(), one.end() - 22);
  append(unpadded, one);
  EXPECT_ERROR(read_header(InputFile(write("unpadded.gguf", unpadded))), ErrorKind::kFormat, "put together by cat");
  Bytes metadata_first = GgufBuilder().set("split.count", uint16_t{2}).file();  // a shard without tensors
  append(metadata_first, one);
  EXPECT_ERROR(read_header(InputFile(write("three.gguf", metadata_first))), ErrorKind::kFormat, "put together by cat");
  Bytes other = one;
  append(other, Bytes(one.size(), std::byte{1}));
  EXPECT_ERROR(read_header(InputFile(write("other.gguf", other))), ErrorKind::kFormat, "with the padding of the last tensor");
}

TEST_F(GgufFiles, KnowsPartsAndUnfinishedDownloadsByTheirNames) {
  const Bytes whole = small_file().file(), begin(whole.begin(), whole.end() - 60), end(whole.end() - 60, whole.end());
  for (const char* name : {"m.gguf.part1of2", "m.i1-Q6_K.gguf.part2of2", "m.gguf-split-a", "m.gguf.001", "m.gguf.aa", "m.gguf.part_ab"}) {
    for (const Bytes& piece : {begin, end})
      EXPECT_ERROR(read_header(InputFile(write(name, piece))), ErrorKind::kFormat, "is a part of a file that was cut by bytes");
  }
  EXPECT_ERROR(read_header(InputFile(write("m.gguf.part1of2", begin))), ErrorKind::kFormat, "cat PARTS ... > m.gguf");
  EXPECT_NO_THROW(read_header(InputFile(write("whole.gguf.part1of2", whole))));
  for (const char* name : {"m.gguf.part", "m.gguf.incomplete", "m.gguf.crdownload"})
    EXPECT_ERROR(read_header(InputFile(write(name, begin))), ErrorKind::kFormat, "is an unfinished download");
  for (const char* name : {"m.gguf", "m.gguf.gz", "m.gguf.bak"})
    EXPECT_ERROR(read_header(InputFile(write(name, begin))), ErrorKind::kFormat, "incomplete download?");
}

TEST(GgufHeader, RefusesOffsetsThatAreNotTheRunningSum) {
  const auto refuse = [](uint64_t a, uint64_t b, std::string_view part) {
    EXPECT_ERROR(parse(Raw(2, 0).tensor("a", {9}, 0, a).tensor("b", {1}, 0, b).pad(32, 4096).bytes()), ErrorKind::kFormat, part);
  };
  refuse(32, 64, "tensor 'a': data offset 32, but the tensor before it ends at 0");
  refuse(0, 32, "tensor 'b': data offset 32, but the tensor before it ends at 64");  // overlap
  refuse(0, 96, "tensor 'b': data offset 96");                                       // hole
  refuse(64, 0, "tensor 'a': data offset 64");                                       // out of order
  refuse(0, 36, "tensor 'b': data offset 36");                                       // without padding
  refuse(0, ~uint64_t{0} - 31, "tensor 'b': data offset 18446744073709551584");      // offset + size wraps
}

TEST(GgufHeader, RefusesSumsThatWrap) {
  // Four tensors of 2^62 bytes: the fourth ends at 2^64.
  Raw raw(4, 0);
  for (uint64_t i = 0; i < 4; ++i) raw.tensor("t" + std::to_string(i), {int64_t{1} << 62}, 24, i << 62);
  EXPECT_ERROR(parse_header(raw.pad().bytes(), ~uint64_t{0}), ErrorKind::kFormat, "tensor 't3': end of the data overflows 64 bits");
}

TEST(GgufHeader, RefusesAFileThatIsTooShortOrTooLong) {
  const Bytes good = small_file().file();
  const auto sized = [&](ptrdiff_t change) {
    Bytes file = good;
    file.resize(static_cast<size_t>(static_cast<ptrdiff_t>(good.size()) + change));
    return file;
  };
  EXPECT_NO_THROW(parse(sized(-1)));  // some programs leave out the padding of the last tensor
  EXPECT_NO_THROW(parse(sized(-22)));
  EXPECT_ERROR(parse(sized(-23)), ErrorKind::kFormat, "tensor 'c': data ends at byte ");
  EXPECT_ERROR(parse(sized(-64)), ErrorKind::kFormat, "tensor 'b': data ends at byte ");
  EXPECT_ERROR(parse(sized(1)), ErrorKind::kFormat, "the file has ");
}

TEST(GgufWriter, RefusesWhatReadersWouldRefuse) {
  const auto write = [](const TensorInfo& tensor) { return serialize_header({}, std::vector{tensor}); };
  EXPECT_ERROR(write({std::string(64, 'n'), DType::F32, {1}}), ErrorKind::kUnsupported, "the name has 64 bytes, GGUF allows 63");
  EXPECT_ERROR(write({"", DType::F32, {1}}), ErrorKind::kUnsupported, "a tensor needs a name");
  EXPECT_ERROR(write({"t", DType::U8, {1}}), ErrorKind::kUnsupported, "tensor 't': GGUF has no type U8");
  EXPECT_ERROR(write({"t", DType::F32, {4, 0}}), ErrorKind::kUnsupported, "tensor 't': shape [4, 0] is empty");
  EXPECT_ERROR(write({"t", DType::Q4_K, {2, 100}}), ErrorKind::kFormat, "row length 100 is not a multiple of 256");
  const TensorInfo t{"t", DType::F32, {1}};
  EXPECT_ERROR(serialize_header({}, std::vector{t, t}), ErrorKind::kUnsupported, "tensor 't': occurs twice");
  Metadata metadata;
  metadata.set("general.alignment", uint32_t{64});
  EXPECT_ERROR(serialize_header(metadata, {}), ErrorKind::kUnsupported, "general.alignment must say 32");
  EXPECT_ERROR(serialize_header({}, {}, 64), ErrorKind::kUnsupported, "general.alignment must say 64");
  metadata.set("general.alignment", uint64_t{64});
  EXPECT_ERROR(serialize_header(metadata, {}, 64), ErrorKind::kUnsupported, "general.alignment must say 64 as a u32");
  Metadata keys;
  keys.set("", 1.0F);
  EXPECT_ERROR(serialize_header(keys, {}), ErrorKind::kUnsupported, "a metadata key of 0 bytes");
}

TEST(GgufWriter, LaysTensorsOutInOrder) {
  const std::vector<TensorInfo> tensors{{"a", DType::F32, {9}}, {"b", DType::Q8_0, {32}}, {"c", DType::I8, {1}}};
  const Layout places = layout(tensors);
  EXPECT_THAT(places.offsets, testing::ElementsAre(0, 64, 128));
  EXPECT_EQ(places.blob_bytes, 160u);
  EXPECT_EQ(layout({}).blob_bytes, 0u);
}

TEST(GgufWriter, NamesShards) {
  EXPECT_EQ(split_name("a-b", 0, 3), "a-b-00001-of-00003.gguf");
  EXPECT_EQ(split_name("", 99998, 99999), "-99999-of-99999.gguf");
}

TEST(GgufFile, FindsAndReadsTensors) {
  TempDir dir;
  test::write_bytes(dir / "m.gguf", small_file().file());
  const File file(dir / "m.gguf");
  EXPECT_EQ(file.files().size(), 1u);
  EXPECT_EQ(file.metadata().get_string("general.architecture"), "llama");
  ASSERT_NE(file.find("b"), nullptr);
  EXPECT_EQ(file.find("bb"), nullptr);
  EXPECT_EQ(file.tensors()[2].name, "c");
  Bytes bytes(8);
  file.read(*file.find("a"), 16, bytes);
  EXPECT_EQ(bytes, floats_to_bytes({5, 6}));
}

TEST(GgufFile, ReadsHeadersLargerThanOneWindow) {
  TempDir dir;
  std::vector<std::string> tokens;
  for (int i = 0; i < 200000; ++i) tokens.push_back("token number " + std::to_string(i));
  GgufBuilder builder;
  builder.set("tokens", tokens).set("big", std::vector<float>(1 << 20, 1.0F)).set("text", std::string(3 << 20, 'x')).set("end", uint8_t{1});
  builder.add("t", DType::F32, {2}, floats_to_bytes({1, 2}));
  test::write_bytes(dir / "m.gguf", builder.file());
  const File file(dir / "m.gguf");
  EXPECT_EQ(file.metadata().entries(), builder.metadata().entries());
  EXPECT_EQ(file.tensors().size(), 1u);
}

// Three shards m-0000N-of-00003.gguf; the first holds no tensors.
class GgufSplitTest : public testing::Test {
 protected:
  GgufSplitTest() {
    for (int i = 0; i < 3; ++i) write_shard(i, i, 3, 3);
  }
  static GgufBuilder shard(int index, int no, int count, int n_tensors) {
    GgufBuilder builder;
    if (index == 0) builder.set("general.architecture", std::string("llama"));
    builder.set("split.no", static_cast<uint16_t>(no)).set("split.count", static_cast<uint16_t>(count));
    builder.set("split.tensors.count", static_cast<int32_t>(n_tensors));
    if (index == 1) builder.add("a", DType::F32, {1}, floats_to_bytes({1})).add("b", DType::F32, {1}, floats_to_bytes({2}));
    if (index == 2) builder.add("c", DType::F32, {1}, floats_to_bytes({3}));
    return builder;
  }
  void write_shard(int index, int no, int count, int n_tensors) const {
    test::write_bytes(path(index), shard(index, no, count, n_tensors).file());
  }
  fs::path path(int index) const { return dir_ / split_name("m", index, 3); }

  TempDir dir_;
};

TEST_F(GgufSplitTest, OpensAllShardsFromTheFirst) {
  const File file(path(0));
  EXPECT_EQ(file.files().size(), 3u);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.find("c")->file_index, 2u);
  EXPECT_EQ(file.metadata().get_string("general.architecture"), "llama");
  Bytes bytes(4);
  file.read(*file.find("c"), 0, bytes);
  EXPECT_EQ(bytes, floats_to_bytes({3}));
}

TEST_F(GgufSplitTest, OpensFromTheCurrentFolder) {
  const fs::path before = fs::current_path();
  fs::current_path(dir_.path());
  EXPECT_EQ(File(path(0).filename()).tensors().size(), 3u);
  fs::current_path(before);
}

TEST_F(GgufSplitTest, AnyShardStandsForAll) {
  const File file(path(1));
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.files().front().path(), path(0));
}

TEST_F(GgufSplitTest, AsksForTheFirstShardWhereItIsNot) {
  fs::remove(path(0));
  EXPECT_ERROR(File(path(1)), ErrorKind::kUsage, "is shard 2 of 3; give the first, 'm-00001-of-00003.gguf'");
}

TEST_F(GgufSplitTest, NamesMissingShards) {
  fs::remove(path(1));
  fs::remove(path(2));
  EXPECT_ERROR(File(path(0)), ErrorKind::kFormat, "2 of 3 shards are missing: m-00002-of-00003.gguf, m-00003-of-00003.gguf");
}

TEST_F(GgufSplitTest, RefusesARenamedFirstShard) {
  fs::rename(path(0), dir_ / "model.gguf");
  EXPECT_ERROR(File(dir_ / "model.gguf"), ErrorKind::kFormat, "its name must end with '-00001-of-00003.gguf'");
}

TEST_F(GgufSplitTest, RefusesForeignShards) {
  write_shard(1, 2, 3, 3);
  EXPECT_ERROR(File(path(0)), ErrorKind::kFormat, "00002-of-00003.gguf: split.no is 2, 1 expected (a shard of another file?)");
  write_shard(1, 1, 4, 3);
  EXPECT_ERROR(File(path(0)), ErrorKind::kFormat, "split.count is 4, 3 expected");
  write_shard(1, 1, 3, 9);
  EXPECT_ERROR(File(path(0)), ErrorKind::kFormat, "split.tensors.count is 9, 3 expected");
  test::write_bytes(path(1), small_file().file());
  EXPECT_ERROR(File(path(0)), ErrorKind::kFormat, "split.no is missing, 1 expected");
}

TEST_F(GgufSplitTest, RefusesAWrongTotal) {
  for (int i = 0; i < 3; ++i) write_shard(i, i, 3, 4);
  EXPECT_ERROR(File(path(0)), ErrorKind::kFormat, "split.tensors.count is 4, the shards have 3");
}

TEST_F(GgufSplitTest, RefusesATensorInTwoShards) {
  for (int i = 0; i < 3; ++i) write_shard(i, i, 3, 4);
  test::write_bytes(path(2), shard(2, 2, 3, 4).add("b", DType::F32, {1}, floats_to_bytes({9})).file());
  EXPECT_ERROR(File(path(0)), ErrorKind::kFormat, "tensor 'b': is in two shards");
}

TEST_F(GgufSplitTest, RefusesNumbersThatMakeNoSense) {
  write_shard(0, 3, 3, 3);
  EXPECT_ERROR(File(path(0)), ErrorKind::kFormat, "split.no 3 of split.count 3 makes no sense");
}

TEST_F(GgufSplitTest, TreatsAMergedFileAsOne) {
  GgufBuilder merged = small_file();
  merged.set("split.count", uint16_t{0});
  test::write_bytes(dir_ / "merged.gguf", merged.file());
  EXPECT_EQ(File(dir_ / "merged.gguf").tensors().size(), 3u);
}

}  // namespace
}  // namespace quern::gguf
