#include "formats/safetensors/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>

#include "formats/base/error.h"
#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"
#include "tests/formats/header_bytes.h"

namespace quern::safetensors {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::expect_every_byte_checked;
using test::floats_to_bytes;
using test::SafetensorsBuilder;
using test::TempDir;
using test::to_bytes;

// A file with this header text and n_data bytes of data.
Bytes with_json(std::string_view json, size_t n_data) {
  Bytes bytes = test::safetensors_header(json);
  bytes.resize(bytes.size() + n_data);
  return bytes;
}

Header parse(const Bytes& file) { return parse_header(file, file.size()); }

// One tensor "t" with these fields.
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return "{\"t\":{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":" + std::string(shape) + ",\"data_offsets\":" + std::string(offsets) +
         "}}";
}

TEST(SafetensorsHeader, ReadsGoldenBytes) {
  // Written by hand from the format description: length 0x6f = 111, two tensors in reverse data order, padding of two spaces.
  const std::string json =
      R"({"b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}  )";
  ASSERT_EQ(json.size(), 111u);
  Bytes file = to_bytes(std::string("\x6f\0\0\0\0\0\0\0", 8) + json + std::string("\0\0\x80\x3f\0\0\0\xc0\x01\xff\x7f", 11));
  const Header header = parse(file);
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0].name, "a");  // in data order
  EXPECT_EQ(header.tensors[0].dtype, DType::F32);
  EXPECT_EQ(header.tensors[0].shape, (Shape{1, 2}));
  EXPECT_EQ(header.tensors[0].file_offset, 119u);
  EXPECT_EQ(header.tensors[0].size_bytes, 8u);
  EXPECT_EQ(load_le<float>(file.data() + header.tensors[0].file_offset + 4), -2.0f);
  EXPECT_EQ(header.tensors[1].name, "b");
  EXPECT_EQ(header.tensors[1].dtype, DType::I8);
  EXPECT_EQ(header.tensors[1].file_offset, 127u);
  EXPECT_TRUE(header.metadata.empty());
}

TEST(SafetensorsHeader, KnowsEveryDtypeThatCheckpointsUse) {
  for (const char* name :
       {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL", "I16", "U16", "I32", "U32", "I64", "U64"}) {
    const DType dtype = *find_dtype_by_name(name);
    const Bytes file = SafetensorsBuilder().add("t", dtype, {3}, Bytes(3 * static_cast<size_t>(traits(dtype).block_bytes))).file();
    EXPECT_EQ(parse(file).tensors.at(0).dtype, dtype) << name;
  }
}

TEST(SafetensorsHeader, RefusesOtherDtypesByName) {
  for (const char* name : {"F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"}) {
    EXPECT_ERROR(parse(with_json(one(name, "[8]", "[0,8]"), 8)), ErrorKind::kUnsupported,
                 std::string("tensor 't': dtype ") + name + " is not supported");
  }
  for (const char* name : {"f32", "Q4_K", "FLOAT", ""}) {
    EXPECT_ERROR(parse(with_json(one(name, "[8]", "[0,8]"), 8)), ErrorKind::kFormat,
                 std::string("tensor 't': dtype '") + name + "' is none of the safetensors format");
  }
}

TEST(SafetensorsHeader, AllowsScalarsEmptyTensorsAndAnEmptyFile) {
  const Bytes file = SafetensorsBuilder()
                         .add("empty1", DType::F32, {0, 7}, {})
                         .add("scalar", DType::F32, {}, floats_to_bytes({1}))
                         .add("empty2", DType::BF16, {4, 0}, {})
                         .add("v", DType::U8, {2}, Bytes(2))
                         .add("empty3", DType::I64, {0}, {})
                         .file();
  const Header header = parse(file);
  ASSERT_EQ(header.tensors.size(), 5u);
  EXPECT_EQ(header.tensors[1].name, "scalar");
  EXPECT_EQ(header.tensors[1].shape.rank(), 0);
  EXPECT_EQ(header.tensors[1].size_bytes, 4u);
  EXPECT_TRUE(parse(with_json("{}", 0)).tensors.empty());
}

TEST(SafetensorsHeader, ReturnsTheMetadataMap) {
  const Header header = parse(SafetensorsBuilder().metadata("format", "pt").metadata("a", "b").add("t", DType::U8, {1}, Bytes(1)).file());
  EXPECT_THAT(header.metadata, testing::ElementsAre(testing::Pair("format", "pt"), testing::Pair("a", "b")));
  EXPECT_EQ(header.tensors.size(), 1u);
}

TEST(SafetensorsHeader, RefusesMetadataThatIsNoMapOfStrings) {
  for (const char* json : {R"({"__metadata__":1})", R"({"__metadata__":"x"})", R"({"__metadata__":{"a":1}})",
                           R"({"__metadata__":{"a":null}})", R"({"__metadata__":{"a":{}}})", R"({"__metadata__":[]})"}) {
    EXPECT_ERROR(parse(with_json(json, 0)), ErrorKind::kFormat, "unexpected ");
  }
  EXPECT_ERROR(parse(with_json(R"({"__metadata__":{"a":"1","a":"2"}})", 0)), ErrorKind::kFormat, "__metadata__ has the key 'a' twice");
  EXPECT_ERROR(parse(with_json(R"({"__metadata__":{},"__metadata__":{}})", 0)), ErrorKind::kFormat, "two __metadata__ maps");
}

TEST(SafetensorsHeader, EveryPrefixThrows) {
  const Bytes good =
      SafetensorsBuilder().metadata("format", "pt").add("a", DType::F32, {2}, Bytes(8)).add("b", DType::U8, {3}, Bytes(3)).file();
  EXPECT_NO_THROW(parse(good));
  for (size_t n = 0; n < good.size(); ++n) {
    const Bytes cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(n));
    EXPECT_THROW(parse(cut), Error) << "prefix of " << n << " bytes";
    if (n < header_end(good, good.size())) {
      EXPECT_THROW(parse_header(cut, good.size()), Error) << n;
    }
  }
}

TEST(SafetensorsHeader, EveryHeaderByteMatters) {
  const Bytes good =
      SafetensorsBuilder().metadata("format", "pt").add("a", DType::F32, {2}, Bytes(8)).add("b", DType::U8, {3}, Bytes(3)).file();
  expect_every_byte_checked(good, header_end(good, good.size()), [](const Bytes& bytes) { return parse(bytes); });
}

TEST(SafetensorsHeader, RefusesBadLengths) {
  Bytes file = with_json("{}", 0);
  const auto with_length = [&](uint64_t length) {
    store_le(file.data(), length);
    return file;
  };
  EXPECT_ERROR(parse(with_length(~uint64_t{0})), ErrorKind::kFormat, "header length 18446744073709551615 is over the limit of 100000000");
  EXPECT_ERROR(parse(with_length(~uint64_t{0} - 7)), ErrorKind::kFormat, "over the limit");  // 8 + N wraps to 0
  EXPECT_ERROR(parse(with_length(kMaxHeaderBytes + 1)), ErrorKind::kFormat, "over the limit");
  EXPECT_ERROR(parse(with_length(kMaxHeaderBytes)), ErrorKind::kFormat, "does not fit in a file of 10 bytes (incomplete download?)");
  EXPECT_ERROR(parse(with_length(3)), ErrorKind::kFormat, "does not fit in a file of 10 bytes");
  EXPECT_ERROR(parse(with_length(0)), ErrorKind::kFormat, "does not begin with '{'");
}

TEST(SafetensorsHeader, RefusesMalformedJson) {
  for (const std::string& json : {std::string(" {}"), std::string("[]"), std::string("\xEF\xBB\xBF{}"), std::string("null")}) {
    EXPECT_ERROR(parse(with_json(json, 0)), ErrorKind::kFormat, "does not begin with '{'");
  }
  for (const std::string& json :
       {std::string("{"), std::string("{}{}"), std::string("{}x"), std::string("{}\0", 3), std::string("{,}"), std::string("{\"a\"}"),
        std::string("{/**/}"), std::string("{\"\xff\":1}"), std::string("{\"\xc0\xaf\":1}"), std::string("{\"a\nb\":{}}"),
        std::string("{\"\\ud800\":{}}"), std::string("{\"a\":1e999}")}) {
    SCOPED_TRACE(json);
    EXPECT_ERROR(parse(with_json(json, 0)), ErrorKind::kFormat, "not valid JSON at byte ");
  }
  EXPECT_NO_THROW(parse(with_json("{} \n\t ", 0)));
}

TEST(SafetensorsHeader, RefusesDeepNesting) {
  std::string json = "{\"a\":";
  for (int i = 0; i < 100000; ++i) json += '[';
  EXPECT_ERROR(parse(with_json(json, 0)), ErrorKind::kFormat, "unexpected an array");
  EXPECT_ERROR(parse(with_json(R"({"t":{"shape":[[1]]}})", 0)), ErrorKind::kFormat, "nested deeper than 3 levels");
}

TEST(SafetensorsHeader, RefusesWrongFields) {
  const auto refuse = [](std::string_view json, std::string_view part) {
    SCOPED_TRACE(json);
    EXPECT_ERROR(parse(with_json(json, 4)), ErrorKind::kFormat, "tensor 't': " + std::string(part));
  };
  refuse(R"({"t":1})", "unexpected a number");
  refuse(R"({"t":[]})", "unexpected an array");
  refuse(R"({"t":{}})", "one of dtype, shape and data_offsets is missing");
  refuse(R"({"t":{"dtype":"F32","shape":[1]}})", "one of dtype, shape and data_offsets is missing");
  refuse(R"({"t":{"dtype":"F32","dtype":"F32"}})", "field 'dtype' occurs twice");
  refuse(R"({"t":{"strides":[1]}})", "unknown field 'strides'");
  refuse(R"({"t":{"dtype":4}})", "unexpected a number");
  refuse(R"({"t":{"dtype":["F32"]}})", "unexpected an array");
  refuse(R"({"t":{"shape":4}})", "unexpected a number");
  refuse(R"({"t":{"shape":["1"]}})", "unexpected a string");
  refuse(R"({"t":{"shape":[{}]}})", "JSON is nested deeper");
  refuse(one("F32", "[-1]", "[0,4]"), "unexpected a negative number");
  refuse(one("F32", "[1.0]", "[0,4]"), "unexpected a number that is no 64-bit integer");
  refuse(one("F32", "[18446744073709551616]", "[0,4]"), "unexpected a number that is no 64-bit integer");
  refuse(one("F32", "[true]", "[0,4]"), "unexpected true");
  refuse(one("F32", "[null]", "[0,4]"), "unexpected null");
  refuse(one("F32", "[1]", "[0]"), "data_offsets needs two numbers");
  refuse(one("F32", "[1]", "[0,4,8]"), "unexpected a number");
  refuse(one("F32", "[1]", "[4,0]"), "data_offsets [4, 0] run backwards");
  refuse(one("F32", "[9223372036854775808]", "[0,4]"), "dimension 9223372036854775808 is out of range");
  EXPECT_ERROR(parse(with_json(one("F32", "[1,1,1,1,1]", "[0,4]"), 4)), ErrorKind::kUnsupported, "tensor 't': has more than 4 dimensions");
}

TEST(SafetensorsHeader, RefusesSizesThatDoNotMatchOrWrap) {
  EXPECT_ERROR(parse(with_json(one("F32", "[2]", "[0,4]"), 4)), ErrorKind::kFormat,
               "tensor 't': shape [2] of F32 takes 8 bytes, data_offsets [0, 4] have 4");
  // 2^32 * 2^32 elements are 0 in 64 bits, 2^62 F32 too.
  EXPECT_ERROR(parse(with_json(one("U8", "[4294967296,4294967296]", "[0,0]"), 0)), ErrorKind::kFormat, "number of elements overflows");
  EXPECT_ERROR(parse(with_json(one("F32", "[4611686018427387904]", "[0,0]"), 0)), ErrorKind::kFormat, "overflows 64 bits");
  // The end of the data wraps.
  EXPECT_ERROR(parse(with_json(one("U8", "[1]", "[18446744073709551614,18446744073709551615]"), 0)), ErrorKind::kFormat,
               "data offset overflows 64 bits");
}

TEST(SafetensorsHeader, RefusesRangesThatDoNotTileTheData) {
  const auto two = [](std::string_view a, std::string_view b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + std::string(a) + R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" +
           std::string(b) + "}}";
  };
  EXPECT_NO_THROW(parse(with_json(two("[0,4]", "[4,8]"), 8)));
  EXPECT_NO_THROW(parse(with_json(two("[4,8]", "[0,4]"), 8)));
  EXPECT_ERROR(parse(with_json(two("[0,4]", "[3,7]"), 7)), ErrorKind::kFormat,
               "tensor 'b': data begins at byte 3 and overlaps the tensor before it, which ends at byte 4");
  EXPECT_ERROR(parse(with_json(two("[0,4]", "[0,4]"), 4)), ErrorKind::kFormat, "overlaps");
  EXPECT_ERROR(parse(with_json(two("[0,4]", "[5,9]"), 9)), ErrorKind::kFormat,
               "tensor 'b': data begins at byte 5 and leaves a hole: the tensor before it ends at byte 4");
  EXPECT_ERROR(parse(with_json(two("[1,5]", "[5,9]"), 9)), ErrorKind::kFormat, "leaves a hole");
  EXPECT_ERROR(parse(with_json(two("[0,4]", "[4,8]"), 7)), ErrorKind::kFormat, "(incomplete download?)");
  EXPECT_ERROR(parse(with_json(two("[0,4]", "[4,8]"), 9)), ErrorKind::kFormat, "1 bytes follow the data of the last tensor");
  EXPECT_ERROR(parse(with_json("{}", 1)), ErrorKind::kFormat, "1 bytes follow");
}

// What another program would take for a file of its own kind: an archive behind the data or behind the header, a page inside a hole.
TEST(SafetensorsHeader, RefusesFilesThatAreSomethingElseToo) {
  Bytes archive = with_json(one("U8", "[4]", "[0,4]"), 4);
  test::append(archive, to_bytes("PK\5\6"));
  EXPECT_ERROR(parse(archive), ErrorKind::kFormat, "4 bytes follow the data of the last tensor");
  EXPECT_ERROR(parse(with_json(one("U8", "[4]", "[0,4]") + "PK\3\4", 4)), ErrorKind::kFormat, "not valid JSON");
  EXPECT_ERROR(parse(with_json(one("U8", "[4]", "[16,20]"), 20)), ErrorKind::kFormat, "leaves a hole");
  EXPECT_ERROR(parse(with_json("%PDF-1.7" + one("U8", "[4]", "[0,4]"), 4)), ErrorKind::kFormat, "does not begin with '{'");
}

TEST(SafetensorsHeader, RefusesATensorNamedTwice) {
  EXPECT_ERROR(
      parse(with_json(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2)),
      ErrorKind::kFormat, "tensor 't': the header names it twice");
}

Index index_of(std::string_view json) { return parse_index(std::as_bytes(std::span(json))); }

TEST(SafetensorsIndex, ReadsTheWeightMapAndSkipsTheRest) {
  const Index index = index_of(
      R"({"metadata":{"total_size":1.5e12,"x":[{"weight_map":{"q":"r"}},null]},"weight_map":{"b":"2.safetensors","a":"2.safetensors","c":"sub/1.safetensors"},"z":-1})");
  EXPECT_THAT(index.files, testing::ElementsAre("2.safetensors", "sub/1.safetensors"));
  ASSERT_EQ(index.entries.size(), 3u);
  EXPECT_EQ(index.entries[0].tensor, "a");
  EXPECT_EQ(index.entries[0].file, 0u);
  EXPECT_EQ(index.entries[2].tensor, "c");
  EXPECT_EQ(index.entries[2].file, 1u);
}

TEST(SafetensorsIndex, RefusesFilesOutsideTheFolder) {
  for (const char* name : {"../x.safetensors", "/etc/passwd", "a/../../x", "..", ".", "", "a/", "./x", "a\\u0000b"}) {
    SCOPED_TRACE(name);
    EXPECT_ERROR(index_of(std::string(R"({"weight_map":{"t":")") + name + "\"}}"), ErrorKind::kFormat,
                 "not a plain name inside the folder");
  }
}

TEST(SafetensorsIndex, RefusesOtherShapes) {
  for (const char* json :
       {"[]", "1", "null", "\"x\"", R"({"weight_map":[]})", R"({"weight_map":1})", R"({"weight_map":"f"})", R"({"weight_map":{"t":1}})",
        R"({"weight_map":{"t":{}}})", R"({"weight_map":{"t":["f"]}})", R"({"weight_map":null})"}) {
    EXPECT_ERROR(index_of(json), ErrorKind::kFormat, "unexpected ");
  }
  EXPECT_ERROR(index_of("{}"), ErrorKind::kFormat, "no weight_map");
  EXPECT_ERROR(index_of(R"({"weight_map":{}})"), ErrorKind::kFormat, "weight_map is empty");
  EXPECT_ERROR(index_of(R"({"weight_map":{"t":"f","t":"f"}})"), ErrorKind::kFormat, "tensor 't': weight_map names it twice");
  EXPECT_ERROR(index_of(R"({"weight_map":{"t":"f"},"weight_map":{"t":"f"}})"), ErrorKind::kFormat, "two weight_maps");
  EXPECT_ERROR(index_of(R"({"metadata":[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]})"), ErrorKind::kFormat, "nested deeper than 16");
}

// Two shards with three tensors, as files or with something wrong.
class CheckpointTest : public testing::Test {
 protected:
  std::map<std::string, SafetensorsBuilder> shards() const {
    std::map<std::string, SafetensorsBuilder> result;
    result["s1.safetensors"].metadata("format", "pt").add("b", DType::F32, {2}, floats_to_bytes({1, 2})).add("d", DType::U8, {1}, Bytes(1));
    result["s2.safetensors"].add("a", DType::F32, {1, 2}, floats_to_bytes({3, 4}));
    return result;
  }
  Checkpoint open() const { return Checkpoint(dir_.path()); }
  void write_index(std::string_view map) const {
    test::write_text(dir_ / "model.safetensors.index.json", "{\"weight_map\":" + std::string(map) + "}");
  }

  TempDir dir_;
};

TEST_F(CheckpointTest, OpensShardsAndReadsTensorBytes) {
  test::write_checkpoint(dir_.path(), shards());
  const Checkpoint checkpoint = open();
  ASSERT_EQ(checkpoint.files().size(), 2u);
  ASSERT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");
  EXPECT_EQ(checkpoint.tensors()[0].file_index, 1u);
  EXPECT_THAT(checkpoint.metadata(), testing::ElementsAre(testing::Pair("format", "pt")));
  ASSERT_NE(checkpoint.find("b"), nullptr);
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  Bytes bytes(4);
  checkpoint.read(*checkpoint.find("b"), 4, bytes);
  EXPECT_EQ(load_le<float>(bytes.data()), 2.0f);
  checkpoint.read(*checkpoint.find("a"), 0, bytes);
  EXPECT_EQ(load_le<float>(bytes.data()), 3.0f);
  EXPECT_EQ(checkpoint.bytes_read(), 8u);
}

TEST_F(CheckpointTest, OpensALoneFile) {
  test::write_bytes(dir_ / "model.safetensors", shards().at("s1.safetensors").file());
  test::write_text(dir_ / "consolidated.safetensors", "stray files are not opened");
  EXPECT_EQ(open().tensors().size(), 2u);
}

TEST_F(CheckpointTest, SaysWhatAFolderWithoutCheckpointHas) {
  EXPECT_ERROR(open(), ErrorKind::kFormat, "the folder has neither model.safetensors.index.json nor model.safetensors");
  EXPECT_ERROR(Checkpoint(dir_ / "absent"), ErrorKind::kFormat, "is not a checkpoint folder");
  test::write_text(dir_ / "pytorch_model.bin", "x");
  EXPECT_ERROR(open(), ErrorKind::kFormat, "'pytorch_model.bin': pickled weights are not supported");
}

TEST_F(CheckpointTest, NamesMissingShards) {
  test::write_checkpoint(dir_.path(), shards());
  fs::remove(dir_ / "s2.safetensors");
  EXPECT_ERROR(open(), ErrorKind::kFormat, "1 of 2 shards are missing: s2.safetensors (incomplete download?)");
}

TEST_F(CheckpointTest, RefusesATruncatedShard) {
  test::write_checkpoint(dir_.path(), shards());
  fs::resize_file(dir_ / "s2.safetensors", fs::file_size(dir_ / "s2.safetensors") - 1);
  EXPECT_ERROR(open(), ErrorKind::kFormat, "s2.safetensors: the header describes a file of ");
}

TEST_F(CheckpointTest, RefusesAnIndexThatDisagreesWithTheShards) {
  test::write_checkpoint(dir_.path(), shards());
  write_index(R"({"a":"s2.safetensors","b":"s1.safetensors","d":"s1.safetensors","x":"s1.safetensors"})");
  EXPECT_ERROR(open(), ErrorKind::kFormat, "index.json: tensor 'x': the index places it in 's1.safetensors', which does not have it");
  write_index(R"({"a":"s2.safetensors","d":"s1.safetensors"})");
  EXPECT_ERROR(open(), ErrorKind::kFormat, "s1.safetensors: tensor 'b': is stored here, but the index does not list it");
  write_index(R"({"a":"s2.safetensors","b":"s2.safetensors","d":"s1.safetensors"})");
  EXPECT_ERROR(open(), ErrorKind::kFormat, "s1.safetensors: tensor 'b': is stored here, but the index places it in 's2.safetensors'");
}

// Folders with several saves: which is read, and what is said of the rest.
class WeightChoice : public testing::Test {
 protected:
  // One tensor per file, named `letter`0, `letter`1 ...
  void write(const std::vector<std::string>& files, const std::string& letter = "t") const {
    for (size_t i = 0; i < files.size(); ++i) {
      SafetensorsBuilder file;
      file.add(letter + std::to_string(i), DType::F32, {1}, floats_to_bytes({1}));
      test::write_bytes(dir_ / files[i], file.file());
    }
  }
  void write_index(const std::vector<std::string>& files) const {
    std::string map;
    for (size_t i = 0; i < files.size(); ++i) map += (i > 0 ? ",\"t" : "\"t") + std::to_string(i) + "\":\"" + files[i] + "\"";
    test::write_text(dir_ / "model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  }
  // Names of the files that are read; notes go to `notes`.
  std::vector<std::string> read(std::string* notes = nullptr) const {
    const Checkpoint checkpoint(dir_.path());
    std::vector<std::string> names;
    for (const InputFile& file : checkpoint.files()) names.push_back(file.path().filename().string());
    for (const std::string& note : checkpoint.notes()) {
      if (notes != nullptr) *notes += note + "\n";
    }
    return names;
  }

  const std::vector<std::string> two_ = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
  const std::vector<std::string> three_ = {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                           "model-00003-of-00003.safetensors"};
  TempDir dir_;
};

TEST_F(WeightChoice, SaysNothingOfAFolderWithOneSet) {
  write(two_);
  write_index(two_);
  test::write_text(dir_ / "training_args.bin", "x");
  std::string notes;
  EXPECT_EQ(read(&notes), two_);
  EXPECT_EQ(notes, "");
}

TEST_F(WeightChoice, RefusesOneFileBesideShards) {
  write(two_);
  write({"model.safetensors"});
  EXPECT_ERROR(read(), ErrorKind::kFormat, "two sets of weights: 'model.safetensors' and 'model-00001-of-00002.safetensors', 'model-00002");
  write_index(two_);
  EXPECT_ERROR(
      read(), ErrorKind::kFormat,
      "two sets of weights: 'model.safetensors' and the 2 files of 'model.safetensors.index.json'; transformers would load model.s");
  fs::remove(dir_ / two_[1]);  // half of a set may be the newer one, too
  EXPECT_ERROR(read(), ErrorKind::kFormat, "two sets of weights");
}

TEST_F(WeightChoice, ReadsOneFileBesideAnIndexOfNothing) {
  write({"model.safetensors"});
  write_index(two_);
  std::string notes;
  EXPECT_THAT(read(&notes), testing::ElementsAre("model.safetensors"));
  EXPECT_THAT(notes, testing::HasSubstr("index.json is stale: none of the files that it names is there; 'model.safetensors' is read"));
}

TEST_F(WeightChoice, ReadsTheOneFileThatAnIndexNames) {
  write({"model.safetensors"});
  write_index({"model.safetensors"});
  std::string notes;
  EXPECT_THAT(read(&notes), testing::ElementsAre("model.safetensors"));
  EXPECT_EQ(notes, "");
}

TEST_F(WeightChoice, NamesWhatItLeavesAside) {
  write(three_);
  write_index(three_);
  for (const char* other : {"consolidated.safetensors", "model.fp16.safetensors", "model.safetensors.index.fp16.json",
                            "pytorch_model-00001-of-00002.bin", "consolidated.00.pth", "adapter_model.safetensors"}) {
    test::write_text(dir_ / other, "x");
    std::string notes;
    EXPECT_EQ(read(&notes), three_);
    EXPECT_THAT(notes, testing::AllOf(testing::HasSubstr("weights that are not read: '" + std::string(other) + "'"),
                                      testing::HasSubstr("the model is 3 files from 'model-00001-of-00003.safetensors' on")));
    fs::remove(dir_ / other);
  }
  write(two_, "old");
  std::string notes;
  EXPECT_EQ(read(&notes), three_);
  EXPECT_THAT(notes, testing::HasSubstr("not read: 'model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'; the model"));
}

TEST_F(WeightChoice, TakesShardsThatAreCompleteByTheirNumbers) {
  write(two_);
  std::string notes;
  EXPECT_EQ(read(&notes), two_);
  EXPECT_THAT(notes, testing::HasSubstr("there is no model.safetensors.index.json; the 2 shards are complete by their numbers"));
  for (const auto& listed : {three_, std::vector<std::string>{two_[0]}, std::vector<std::string>{"a.safetensors"}}) {
    write_index(listed);
    notes.clear();
    EXPECT_EQ(read(&notes), two_);
    EXPECT_THAT(notes, testing::HasSubstr("index.json is stale: it "));
    EXPECT_THAT(notes, testing::HasSubstr("the 2 shards are complete by their numbers and are read without it"));
  }
}

TEST_F(WeightChoice, BelievesHeadersOfNumberedShardsMoreThanTheIndex) {
  write(two_);
  for (const char* map :
       {R"({"t0":"model-00001-of-00002.safetensors","t1":"model-00002-of-00002.safetensors","x":"model-00002-of-00002.safetensors"})",
        R"({"t0":"model-00002-of-00002.safetensors","t1":"model-00001-of-00002.safetensors"})",
        R"({"t0":"model-00001-of-00002.safetensors","u":"model-00002-of-00002.safetensors"})"}) {
    test::write_text(dir_ / "model.safetensors.index.json", "{\"weight_map\":" + std::string(map) + "}");
    std::string notes;
    EXPECT_EQ(read(&notes), two_);
    EXPECT_THAT(notes, testing::HasSubstr("index.json is stale and was not believed, as the shards are complete by their numbers: model"));
  }
}

TEST_F(WeightChoice, RefusesShardsOfTwoSaves) {
  write(two_);
  write({three_[0]}, "u");
  EXPECT_ERROR(read(), ErrorKind::kFormat,
               "shards of two saves: 'model-00001-of-00002.safetensors' and 'model-00001-of-00003.safetensors'");
  write_index(three_);  // a download over an older save that is not finished
  EXPECT_ERROR(read(), ErrorKind::kFormat, "2 of 3 shards are missing: model-00002-of-00003.safetensors");
}

TEST_F(WeightChoice, CountsTheShardsThatAreMissingWithoutAnIndex) {
  write({three_[0], three_[2]});
  EXPECT_ERROR(read(), ErrorKind::kFormat, "1 of 3 shards are missing: of 'model-*-of-00003.safetensors' there are 'model-00001-of");
}

TEST_F(WeightChoice, SaysWhatTheFolderHasInstead) {
  const auto only = [&](const std::string& name) {
    test::write_text(dir_ / name, "x");
    try {
      read();
    } catch (const Error& error) {
      fs::remove(dir_ / name);
      return error.message();
    }
    return std::string();
  };
  EXPECT_THAT(only("model.fp16.safetensors"), testing::HasSubstr("if it alone is the model, rename it to model.safetensors"));
  EXPECT_THAT(only("consolidated.safetensors"), testing::HasSubstr("publisher's own layout"));
  EXPECT_THAT(only("adapter_model.safetensors"), testing::HasSubstr("'adapter_model.safetensors' is an adapter"));
  fs::create_directory(dir_ / "weights");
  EXPECT_THAT(only("weights/model.safetensors"), testing::HasSubstr("safetensors files are in 'weights': name that folder"));
}

TEST_F(CheckpointTest, RefusesATensorInTwoShards) {
  auto both = shards();
  both["s2.safetensors"].add("b", DType::U8, {1}, Bytes(1));
  test::write_checkpoint(dir_.path(), both);
  write_index(R"({"a":"s2.safetensors","b":"s2.safetensors","d":"s1.safetensors"})");
  EXPECT_ERROR(open(), ErrorKind::kFormat, "tensor 'b': is stored twice, here and in '");
}

TEST_F(CheckpointTest, FollowsLinksToFilesOnly) {
  // The Hub's cache keeps blobs elsewhere and fills the snapshot folder with links.
  TempDir blobs;
  test::write_bytes(blobs / "0123", shards().at("s2.safetensors").file());
  fs::create_symlink(blobs / "0123", dir_ / "model.safetensors");
  EXPECT_EQ(open().tensors().size(), 1u);
  fs::remove(dir_ / "model.safetensors");
  fs::create_symlink("/dev/zero", dir_ / "model.safetensors");
  EXPECT_ERROR(open(), ErrorKind::kIo, "not a regular file");
}

TEST_F(CheckpointTest, NamesTheTensorWhenTheFileShrinksLater) {
  test::write_checkpoint(dir_.path(), shards());
  const Checkpoint checkpoint = open();
  fs::resize_file(dir_ / "s2.safetensors", fs::file_size(dir_ / "s2.safetensors") - 4);
  Bytes bytes(8);
  EXPECT_ERROR(checkpoint.read(*checkpoint.find("a"), 0, bytes), ErrorKind::kFormat, "tensor 'a': file ends here");
}

TEST_F(CheckpointTest, TakesSparseTensorsLargerThanMemory) {
  SafetensorsBuilder big;
  big.add_zeros("experts", DType::BF16, {1024, 16384, 16384});
  test::write_sparse(dir_ / "model.safetensors", big.header(), big.data_bytes());
  const Checkpoint checkpoint = open();
  const StoredTensor& tensor = *checkpoint.find("experts");
  EXPECT_EQ(tensor.size_bytes, uint64_t{1} << 39);
  Bytes last(1, std::byte{1});
  checkpoint.read(tensor, tensor.size_bytes - 1, last);
  EXPECT_EQ(last[0], std::byte{0});
}

TEST(SafetensorsModels, EveryMiniatureOpens) {
  size_t n_models = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(fs::path(QUERN_TEST_DATA) / "models")) {
    if (!entry.is_directory()) continue;
    const Checkpoint checkpoint(entry.path());
    EXPECT_GT(checkpoint.tensors().size(), 10u) << entry.path();
    ++n_models;
  }
  EXPECT_GT(n_models, 0u);
}

}  // namespace
}  // namespace quern::safetensors
