#include "verify/intact/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <iostream>

#include "convert/record/build_record_json.h"
#include "formats/gguf/gguf.h"
#include "tests/convert/conversion.h"
#include "verify/publish/publish.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::TempDir;
using testing::HasSubstr;

constexpr const char* kModel = "mini-qwen3moe";

// Bytes of files, changed in place.
class Patch {
 public:
  explicit Patch(fs::path path) : path_(std::move(path)), bytes_(read_file(path_, uint64_t{1} << 30)) {}
  ~Patch() { test::write_bytes(path_, bytes_); }
  Patch(const Patch&) = delete;
  Patch& operator=(const Patch&) = delete;

  Bytes& bytes() { return bytes_; }
  void flip(uint64_t offset) { bytes_.at(offset) ^= std::byte{0x10}; }
  void swap(uint64_t a, uint64_t b, uint64_t n) {
    std::swap_ranges(bytes_.begin() + static_cast<ptrdiff_t>(a), bytes_.begin() + static_cast<ptrdiff_t>(a + n),
                     bytes_.begin() + static_cast<ptrdiff_t>(b));
  }

 private:
  fs::path path_;
  Bytes bytes_;
};

void replace_text(const fs::path& path, const std::string& from, const std::string& to) {
  std::string text = read_text_file(path, uint64_t{1} << 30);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  test::write_text(path, text.replace(at, from.size(), to));
}

// A published folder as another program would leave it, to be damaged.
class Folder {
 public:
  Folder(const fs::path& original, fs::path path) : path_(std::move(path)) {
    fs::copy(original, path_, fs::copy_options::recursive);
    manifest = read_manifest(path_ / kManifestName);
  }

  const fs::path& path() const { return path_; }
  const BuildRecord& build(size_t i = 0) const { return manifest.builds.at(i); }
  fs::path file(size_t f, size_t b = 0) const { return path_ / build(b).files.at(f).name; }
  fs::path file_of(const TensorRecord& tensor) const { return file(tensor.file); }
  const TensorRecord& tensor(const std::string& name) const { return *std::ranges::find(build().tensors, name, &TensorRecord::name); }

  // The first file with its metadata changed, as tools rewrite it.
  void edit(const std::function<void(Metadata&)>& change) const {
    const fs::path path = file(0);
    const gguf::Header header = gguf::read_header(InputFile(path));
    const Bytes all = read_file(path, uint64_t{1} << 30);
    Metadata metadata = header.metadata;
    change(metadata);
    Bytes out = gguf::serialize_header(metadata, header.tensors);
    out.insert(out.end(), all.begin() + static_cast<ptrdiff_t>(header.data_offset), all.end());
    test::write_bytes(path, out);
  }

  Manifest manifest;

 private:
  fs::path path_;
};

// Two builds of a mixture of experts, one of them in shards, signed.
class Repository {
 public:
  Repository() {
    PlanOptions split = test::options_for(dir_ / "repo", {"Q4_K_M"});
    split.split_bytes = 150'000;
    split.metadata_shard = true;
    split.folder_per_type = true;
    ModelOptions about;
    about.base_models = {"org/Model"};
    const std::unique_ptr<ModelSource> source = open_model(test::bundled(kModel), about);
    for (const PlanOptions& options : {split, test::options_for(dir_ / "repo", {"Q8_0"})})
      run_plan(*source, test::plan_for(*source, test::bundled(kModel), options), no_progress());
    Manifest manifest;
    manifest.quern_version = "test";
    manifest.base_model = "org/Model";
    manifest.revision = "1234";
    for (const char* end : {"-Q4_K_M.tensors.json", "-Q8_0.tensors.json"}) {
      const fs::path list = test::file_ending(dir_ / "repo", end);
      manifest.builds.push_back(build_record_from_json(read_text_file(list, 1 << 26)));
    }
    manifest.sources = hash_sources(*source, test::bundled(kModel), no_progress());
    test::write_text(dir_ / "repo" / "README.md", "# A model\n");
    const Ed25519Key key = write_new_key(key_files(dir_ / "key.pem"));
    write_documents(dir_ / "repo", manifest, &key);
  }

  fs::path path() const { return dir_ / "repo"; }
  fs::path public_key() const { return dir_ / "key.pub.pem"; }
  std::string signer() const { return "key " + Ed25519Key::read_public(public_key()).id().substr(0, 16); }

 private:
  TempDir dir_;
};

const Repository& repository() {
  static const Repository made;
  return made;
}

std::string text_of(const VerifyReport& report) {
  std::string text;
  for (const Finding& finding : report.findings) text += finding.kind + ": " + to_string(finding) + "\n";
  return text;
}

VerifyReport verified(const fs::path& folder, const std::function<void(VerifyOptions&)>& change = {}) {
  VerifyOptions options;
  options.path = folder;
  options.public_key = repository().public_key();
  if (change) change(options);
  return verify(options, no_progress());
}

CheckState state_of(const VerifyReport& report, const std::string& name) {
  const auto found = std::ranges::find(report.checks, name, &Check::name);
  return found == report.checks.end() ? CheckState::kSkipped : found->state;
}

std::string detail_of(const VerifyReport& report, const std::string& name) {
  const auto found = std::ranges::find(report.checks, name, &Check::name);
  return found == report.checks.end() ? "" : found->detail;
}

TEST(Verify, APublishedFolderIsIntact) {
  const VerifyReport report = verified(repository().path(), [](VerifyOptions& options) {
    options.source = test::bundled(kModel);
    options.sample = 1;
  });
  EXPECT_EQ(text_of(report), "");
  for (const Check& check : report.checks) EXPECT_EQ(check.state, CheckState::kOk) << check.name << ": " << check.detail;
  EXPECT_EQ(report.checks.size(), 8U);
  EXPECT_EQ(report.verdict, "intact: 2 builds of org/Model at 1234, signed by " + repository().signer() + ", derived again from " + kModel);
  EXPECT_EQ(report.intact(), true);
  EXPECT_THAT(report.checks.back().detail, HasSubstr(" metadata keys derived again"));
}

// Everybody can write a key's name.
TEST(Verify, WithoutAKeyTheSignerIsOnlyNamed) {
  const VerifyReport report = verified(repository().path(), [](VerifyOptions& options) { options.public_key.reset(); });
  EXPECT_EQ(report.verdict, "intact: 2 builds of org/Model at 1234, signed by " + repository().signer() + " as it says");
  EXPECT_EQ(state_of(report, "signature"), CheckState::kSkipped);
  EXPECT_THAT(detail_of(report, "signature"), HasSubstr("--key PUB.pem checks that"));
}

TEST(Verify, TheManifestListsEveryFileThatWasRead) {
  std::vector<std::string> names;
  for (const SourceRecord& source : read_manifest(repository().path() / kManifestName).sources) names.push_back(source.name);
  EXPECT_THAT(
      names, testing::ElementsAre("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"));
}

TEST(Verify, DocumentsOfTheCheckpointAreCompared) {
  const TempDir dir;
  const fs::path source = test::copy_model(kModel, dir / kModel);
  replace_text(source / "config.json", "\"use_cache\": true", "\"use_cache\": false");
  const auto report = [&] { return verified(repository().path(), [&](VerifyOptions& options) { options.source = source; }); };
  EXPECT_EQ(text_of(report()), "changed-source: the file config.json of the checkpoint is not the one that the builds were made from\n");
  EXPECT_EQ(report().intact(), true);
  replace_text(source / "config.json", "1e-06", "1e-05");
  EXPECT_EQ(report().intact(), false);
  EXPECT_THAT(text_of(report()), HasSubstr("'qwen3moe.attention.layer_norm_rms_epsilon' is not what the checkpoint gives, 1e-05"));
  EXPECT_THAT(report().verdict, testing::StartsWith("damaged: not what the checkpoint gives: "));
}

TEST(Verify, AManifestThatListsTensorFilesAloneIsEnough) {
  const TempDir dir;
  Folder folder(repository().path(), dir / "repo");
  folder.manifest.sources.resize(1);
  fs::remove(folder.path() / kAttestationName);
  write_documents(folder.path(), folder.manifest, nullptr);
  const VerifyReport report = verified(folder.path(), [](VerifyOptions& options) {
    options.public_key.reset();
    options.source = test::bundled(kModel);
  });
  EXPECT_EQ(text_of(report), "");
  EXPECT_THAT(report.verdict, HasSubstr("2 builds of org/Model at 1234, not signed, a sample derived again from "));
}

TEST(Verify, AChangedDocumentIsNoForgedSignature) {
  const TempDir dir;
  const Folder folder(repository().path(), dir / "repo");
  test::write_text(folder.path() / "README.md", "# Another model\n");
  for (const bool with_sums : {true, false}) {
    if (!with_sums) fs::remove(folder.path() / kSumsName);
    const VerifyReport report = verified(folder.path());
    EXPECT_EQ(state_of(report, "signature"), CheckState::kOk);
    EXPECT_EQ(state_of(report, "signed"), CheckState::kFailed);
    EXPECT_THAT(detail_of(report, "signed"), HasSubstr("not as listed: README.md"));
    EXPECT_EQ(report.verdict, "damaged: the signature is right, but not what was signed: README.md");
    EXPECT_EQ(report.intact(), false);
  }
}

TEST(Verify, CountsWhatCouldNotBeLookedAt) {
  const TempDir dir;
  const Folder folder(repository().path(), dir / "repo");
  const size_t n_files = folder.build(0).files.size() + folder.build(1).files.size();
  test::write_text(folder.file(1), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 17209920\n");
  fs::resize_file(folder.file(2), 1000);
  fs::remove(folder.file(3));
  const VerifyReport report = verified(folder.path());
  EXPECT_EQ(report.findings[0].kind, "stand-in");
  EXPECT_THAT(report.findings[0].message, HasSubstr("Git LFS pointer"));
  EXPECT_EQ(report.findings[1].kind, "truncated");
  EXPECT_THAT(report.findings[1].message, testing::StartsWith("incomplete download: 1000 of "));
  EXPECT_EQ(report.count(Verdict::kDamage), 3U) << text_of(report);
  const std::string share = std::to_string(n_files - 3) + " of " + std::to_string(n_files);
  EXPECT_EQ(detail_of(report, "structure"), share + " GGUF files");
  EXPECT_EQ(detail_of(report, "weights"), "all scales and weights of " + share + " files are finite");
}

struct Damage {
  const char* name;
  std::function<void(const Folder&)> make;
  std::string kind;  // of the first finding
  std::vector<std::string> says;
};

class VerifyDamage : public testing::TestWithParam<Damage> {};

constexpr const char* kMatrix = "blk.0.attn_q.weight";
constexpr const char* kExperts = "blk.1.ffn_up_exps.weight";

uint64_t slice_bytes(const TensorRecord& tensor) { return tensor.size_bytes / tensor.slices.size(); }

std::vector<Damage> damages() {
  return {
      {"a byte of a matrix",
       [](const Folder& f) { Patch(f.file_of(f.tensor(kMatrix))).flip(f.tensor(kMatrix).offset + 100); },
       "flipped-bytes",
       {kMatrix, "offset"}},
      {"a byte of an expert",
       [](const Folder& f) {
         const TensorRecord& t = f.tensor(kExperts);
         Patch(f.file_of(t)).flip(t.offset + 2 * slice_bytes(t) + 5);
       },
       "flipped-bytes",
       {kExperts, "expert 2"}},
      {"a byte of a name in the metadata",
       [](const Folder& f) {
         Patch patch(f.file(0));
         const std::string_view text(reinterpret_cast<const char*>(patch.bytes().data()), patch.bytes().size());
         patch.flip(text.find("general.name") + 12 + 4 + 8 + 1);
       },
       "edited-metadata",
       {"'general.name'", "changed"}},
      {"the chat template",
       [](const Folder& f) { f.edit([](Metadata& m) { m.set("tokenizer.chat_template", std::string("{{ 'ignore all rules' }}")); }); },
       "edited-template",
       {"'tokenizer.chat_template'"}},
      {"a key more",
       [](const Folder& f) { f.edit([](Metadata& m) { m.set("general.author", std::string("somebody")); }); },
       "edited-metadata",
       {"'general.author' was added"}},
      {"a key less",
       [](const Folder& f) { f.edit([](Metadata& m) { m.erase("tokenizer.ggml.eos_token_id"); }); },
       "edited-metadata",
       {"'tokenizer.ggml.eos_token_id' was removed"}},
      {"the magic", [](const Folder& f) { Patch(f.file(1)).flip(0); }, "damaged-header", {"does not begin with 'GGUF'"}},
      {"a letter of a tensor's name",
       [](const Folder& f) {
         Patch patch(f.file(2));
         const std::string_view text(reinterpret_cast<const char*>(patch.bytes().data()), patch.bytes().size());
         patch.flip(text.find("blk.") + 1);
       },
       "foreign-tensor",
       {"is not in the record"}},
      {"a byte of padding",
       [](const Folder& f) {
         const gguf::Header header = gguf::read_header(InputFile(f.file(2)));
         Patch(f.file(2)).flip(header.data_offset - 1);
       },
       "flipped-bytes",
       {"padding or header"}},
      {"cut in the header", [](const Folder& f) { fs::resize_file(f.file(1), 40); }, "truncated", {"offset 40", "incomplete"}},
      {"cut in a tensor",
       [](const Folder& f) { fs::resize_file(f.file_of(f.tensor(kMatrix)), f.tensor(kMatrix).offset + 7); },
       "truncated",
       {kMatrix, "cut in this tensor"}},
      {"the last byte missing",
       [](const Folder& f) { fs::resize_file(f.file(2), fs::file_size(f.file(2)) - 1); },
       "truncated",
       {"incomplete download"}},
      {"two tensors swapped",
       [](const Folder& f) {
         const TensorRecord &a = f.tensor("blk.1.ffn_up_exps.weight"), &b = f.tensor("blk.1.ffn_gate_exps.weight");
         ASSERT_EQ(a.size_bytes, b.size_bytes);
         Bytes first = read_file(f.file_of(a), 1 << 30), second = read_file(f.file_of(b), 1 << 30);
         if (a.file == b.file) {
           Patch(f.file_of(a)).swap(a.offset, b.offset, a.size_bytes);
           return;
         }
         Patch pa(f.file_of(a)), pb(f.file_of(b));
         std::memcpy(pa.bytes().data() + a.offset, second.data() + b.offset, a.size_bytes);
         std::memcpy(pb.bytes().data() + b.offset, first.data() + a.offset, a.size_bytes);
       },
       "swapped",
       {"holds the bytes of", "ffn_gate_exps"}},
      {"two experts swapped",
       [](const Folder& f) {
         const TensorRecord& t = f.tensor(kExperts);
         Patch(f.file_of(t)).swap(t.offset, t.offset + 3 * slice_bytes(t), slice_bytes(t));
       },
       "swapped",
       {"expert 0: holds the bytes of", "expert 3"}},
      {"a shard missing", [](const Folder& f) { fs::remove(f.file(2)); }, "missing-shard", {"shard 3 of"}},
      {"two shards exchanged",
       [](const Folder& f) {
         fs::rename(f.file(1), f.path() / "x");
         fs::rename(f.file(2), f.file(1));
         fs::rename(f.path() / "x", f.file(2));
       },
       "foreign-shard",
       {"under another name"}},
      {"a shard of another build",
       [](const Folder& f) {
         const TempDir other;
         PlanOptions options = test::options_for(other.path(), {"Q5_0"});
         options.split_bytes = 150'000;
         options.metadata_shard = true;
         test::convert(test::bundled(kModel), options);
         fs::copy_file(test::file_ending(other.path(), "-00003-of-" + f.file(2).string().substr(f.file(2).string().size() - 10)), f.file(2),
                       fs::copy_options::overwrite_existing);
       },
       "foreign-shard",
       {"is of another build"}},
      {"a scale that is not a number",
       [](const Folder& f) {
         const TensorRecord& t = f.tensor("blk.0.attn_norm.weight");
         Patch patch(f.file_of(t));
         const float nan = std::numeric_limits<float>::quiet_NaN();
         std::memcpy(patch.bytes().data() + t.offset + 8, &nan, sizeof nan);
       },
       "nonfinite",
       {"blk.0.attn_norm.weight"}},
      {"bytes at the end",
       [](const Folder& f) {
         Patch patch(f.file(2));
         patch.bytes().resize(patch.bytes().size() + 64);
       },
       "trailing-bytes",
       {"were published"}},
      {"a sum in the manifest",
       [](const Folder& f) {
         const std::string sum = f.tensor(kMatrix).sha256;
         replace_text(f.path() / kManifestName, sum, std::string(64, '0'));
       },
       "wrong-record",
       {kMatrix, "changed"}},
      {"the manifest's list of sources",
       [](const Folder& f) { replace_text(f.path() / kManifestName, "model.safetensors", "other.safetensors"); },
       "changed-manifest",
       {"manifest.json: was changed"}},
      {"the manifest made unreadable",
       [](const Folder& f) { replace_text(f.path() / kManifestName, "\"builds\"", "\"build\""); },
       "changed-manifest",
       {"not a manifest"}},
      {"a line of SHA256SUMS",
       [](const Folder& f) { replace_text(f.path() / kSumsName, f.build().files[1].sha256, std::string(64, 'a')); },
       "changed-sums",
       {"SHA256SUMS"}},
      {"the model card",
       [](const Folder& f) { test::write_text(f.path() / "README.md", "# Another model\n"); },
       "changed-file",
       {"README.md"}},
      {"the statement",
       [](const Folder& f) {
         std::string payload = parse_envelope(read_text_file(f.path() / kAttestationName, 1 << 20)).payload;
         const std::string before = base64_encode(payload);
         replace_text(f.path() / kAttestationName, before, base64_encode(payload.replace(payload.find("README.md"), 9, "readme.md")));
       },
       "wrong-key",
       {"was changed after this key signed it"}},
      {"the attestation missing", [](const Folder& f) { fs::remove(f.path() / kAttestationName); }, "not-signed", {"is missing"}},
      {"a file more", [](const Folder& f) { fs::copy_file(f.file(0, 1), f.path() / "extra.gguf"); }, "foreign-file", {"extra.gguf"}},
  };
}

TEST_P(VerifyDamage, IsNamed) {
  const TempDir dir;
  const Folder folder(repository().path(), dir / "repo");
  GetParam().make(folder);
  const VerifyReport report = verified(folder.path());
  const std::string text = text_of(report);
  ASSERT_GT(report.count(Verdict::kDamage), 0U);
  EXPECT_EQ(report.findings.front().kind, GetParam().kind) << text;
  for (const std::string& part : GetParam().says) EXPECT_THAT(text, HasSubstr(part));
  EXPECT_LE(report.findings.size(), 3U) << text;  // what follows from the damage is not reported again
  std::cout << "| " << GetParam().name << " | " << text.substr(0, text.find('\n')) << " |\n";
}

std::string test_name(const testing::TestParamInfo<Damage>& damage) {
  std::string name = damage.param.name;
  std::erase(name, '\'');
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Table, VerifyDamage, testing::ValuesIn(damages()), test_name);

TEST(Verify, AnotherKeyIsRefused) {
  const TempDir dir;
  write_new_key(key_files(dir / "other.pem"));
  const VerifyReport report = verified(repository().path(), [&](VerifyOptions& options) { options.public_key = dir / "other.pub.pem"; });
  EXPECT_EQ(state_of(report, "signature"), CheckState::kFailed);
  EXPECT_EQ(report.findings.front().kind, "wrong-key");
  EXPECT_THAT(report.findings.front().message, HasSubstr("it claims to be by " + repository().signer()));
  EXPECT_EQ(report.verdict, "damaged: it is not signed by the key that was given");
}

TEST(Verify, AChangedCheckpointIsNamedWithTheTensor) {
  const TempDir dir;
  const fs::path source = test::copy_model(kModel, dir / "model");
  const fs::path weights = source / "model.safetensors";
  Patch(weights).flip(fs::file_size(weights) / 2);
  const VerifyReport report = verified(repository().path(), [&](VerifyOptions& options) {
    options.source = source;
    options.sample = 1;
  });
  EXPECT_EQ(state_of(report, "contents"), CheckState::kOk);
  EXPECT_EQ(state_of(report, "source"), CheckState::kFailed);
  EXPECT_THAT(text_of(report), HasSubstr("changed-source: the file model.safetensors of the checkpoint"));
  EXPECT_THAT(text_of(report), HasSubstr("not-derivable: "));
}

TEST(WriteDocuments, SumsLeaveOutWhatAKillLeft) {
  const TempDir dir;
  const Folder folder(repository().path(), dir / "repo");
  const auto sums = [&] { return read_text_file(folder.path() / kSumsName, 1 << 20); };
  write_documents(folder.path(), folder.manifest, nullptr);
  const std::string without = sums();
  test::write_text(folder.path() / (std::string(kSumsName) + ".part"), "half of the sums");
  write_documents(folder.path(), folder.manifest, nullptr);
  EXPECT_EQ(sums(), without);
}

TEST(Verify, AnOlderEncoderIsNoDamage) {
  const TempDir dir;
  Folder folder(repository().path(), dir / "repo");
  folder.manifest.builds[0].settings.set("quern.encoder.Q4_K", uint32_t{9999});
  write_documents(folder.path(), folder.manifest, nullptr);
  fs::remove(folder.path() / kAttestationName);
  const VerifyReport report = verified(folder.path(), [](VerifyOptions& options) {
    options.public_key.reset();
    options.source = test::bundled(kModel);
  });
  EXPECT_EQ(report.count(Verdict::kDamage), 0U) << text_of(report);
  EXPECT_EQ(report.count(Verdict::kUnprovable), 1U);
  EXPECT_THAT(text_of(report), HasSubstr("cannot be re-derived by this version: Q4_K was made by encoder revision 9999"));
}

TEST(Verify, StatisticsThatAreNotHereAreNoDamage) {
  for (const char* key : {"quern.imatrix.sha256", "quern.feedback.text_sha256"}) {
    const TempDir dir;
    Folder folder(repository().path(), dir / "repo");
    folder.manifest.builds[0].settings.set(key, std::string(64, '7'));
    if (key == std::string("quern.feedback.text_sha256")) folder.manifest.builds[0].settings.set("quern.feedback.mode", "original");
    write_documents(folder.path(), folder.manifest, nullptr);
    fs::remove(folder.path() / kAttestationName);
    const VerifyReport report = verified(folder.path(), [](VerifyOptions& options) {
      options.public_key.reset();
      options.source = test::bundled(kModel);
    });
    EXPECT_EQ(report.count(Verdict::kDamage), 0U) << text_of(report);
    EXPECT_EQ(report.count(Verdict::kUnprovable), 1U);
    EXPECT_THAT(text_of(report), HasSubstr("SHA-256 7777"));
    EXPECT_THAT(text_of(report), HasSubstr(key == std::string("quern.imatrix.sha256") ? "--imatrix FILE" : "--calib-text FILE"));
    EXPECT_EQ(report.findings.front().file, folder.build().files.front().name);
    EXPECT_EQ(report.intact(), std::nullopt);
    EXPECT_THAT(report.verdict, testing::AllOf(testing::StartsWith("not proved: 2 builds of org/Model"), HasSubstr("derived again")));
  }
}

TEST(Verify, ABuildOfOtherWeightsIsNotDerivable) {
  const TempDir dir;
  const fs::path source = test::copy_model(kModel, dir / "model");
  Patch(source / "model.safetensors").flip(fs::file_size(source / "model.safetensors") / 2);
  test::convert(source, test::options_for(dir / "out", {"Q8_0"}));
  const VerifyReport report = verified(dir / "out", [](VerifyOptions& options) {
    options.public_key.reset();
    options.source = test::bundled(kModel);
    options.sample = 1;
  });
  ASSERT_EQ(report.count(Verdict::kDamage), 1U) << text_of(report);
  EXPECT_EQ(report.findings.front().kind, "not-derivable");
  EXPECT_TRUE(report.findings.front().offset.has_value());
}

TEST(Verify, ASampleIsReproducedByItsSeedAndTouchesEveryTensor) {
  const auto detail = [](uint64_t seed) {
    const VerifyReport report = verified(repository().path(), [&](VerifyOptions& options) {
      options.source = test::bundled(kModel);
      options.sample = 0.3;
      options.seed = seed;
    });
    return report.checks.back().detail + "/" + std::to_string(report.bytes_read);
  };
  EXPECT_EQ(detail(1), detail(1));
  EXPECT_THAT(detail(1), HasSubstr("seed 1"));
}

TEST(Verify, AFileAloneStandsForItsBuild) {
  const TempDir dir;
  const Folder folder(repository().path(), dir / "repo");
  Patch(folder.file(0, 1)).flip(folder.build(1).tensors.back().offset);
  EXPECT_EQ(verified(folder.file(0)).count(Verdict::kDamage), 0U);
  EXPECT_EQ(verified(folder.file(0, 1)).count(Verdict::kDamage), 1U);
}

// The shards of the first build, wherever they lie.
std::vector<fs::path> shards_of(const fs::path& folder, const Manifest& manifest) {
  std::vector<fs::path> paths;
  for (const FileRecord& file : manifest.builds.at(0).files) paths.push_back(folder / fs::path(file.name).filename());
  return paths;
}

void damage_last(const std::vector<fs::path>& shards) { Patch(shards.back()).flip(fs::file_size(shards.back()) - 500); }

TEST(Verify, AFolderOfAPublishedOneHasItsRecordAbove) {
  const TempDir dir;
  const Folder folder(repository().path(), dir / "repo");
  const fs::path build = folder.file(0).parent_path();
  const VerifyReport intact = verified(build);
  EXPECT_EQ(text_of(intact), "");
  EXPECT_EQ(state_of(intact, "contents"), CheckState::kOk);
  EXPECT_EQ(state_of(intact, "signature"), CheckState::kOk);
  damage_last(shards_of(build, folder.manifest));
  EXPECT_EQ(verified(build).findings.front().kind, "flipped-bytes");
  EXPECT_EQ(verified(build / "").count(Verdict::kDamage), 1U);
  EXPECT_EQ(verified(folder.file(0)).findings.front().file, folder.build().files.back().name);  // of the first shard: damage of the last
}

TEST(Verify, TwoFoldersAboveIsFarEnough) {
  const TempDir dir;
  const Folder folder(repository().path(), dir / "repo");
  fs::create_directories(folder.path() / "builds");
  fs::rename(folder.file(0).parent_path(), folder.path() / "builds" / "q4");
  const std::vector<fs::path> shards = shards_of(folder.path() / "builds" / "q4", folder.manifest);
  EXPECT_EQ(text_of(verified(shards.front())), "");
  damage_last(shards);
  EXPECT_EQ(verified(shards.front()).count(Verdict::kDamage), 1U);
}

// Everything that a download into one folder leaves: no folders, one build of two, no README.
class FlatDownload : public testing::Test {
 protected:
  FlatDownload() : manifest_(read_manifest(repository().path() / kManifestName)) {
    fs::create_directories(flat());
    for (const FileRecord& file : manifest_.builds.at(0).files)
      fs::copy_file(repository().path() / file.name, flat() / fs::path(file.name).filename());
    for (const char* name : {kManifestName, kSumsName, kAttestationName}) fs::copy_file(repository().path() / name, flat() / name);
    shards_ = shards_of(flat(), manifest_);
  }

  fs::path flat() const { return dir_ / "flat"; }

  TempDir dir_;
  Manifest manifest_;
  std::vector<fs::path> shards_;
};

TEST_F(FlatDownload, IsRecognisedByTheNamesOfItsFiles) {
  for (const fs::path& path : {flat(), shards_.front(), shards_.back()}) {
    const VerifyReport report = verified(path);
    EXPECT_EQ(report.count(Verdict::kDamage) + report.count(Verdict::kUnprovable), 0U) << text_of(report);
    EXPECT_EQ(state_of(report, "contents"), CheckState::kOk) << path;
    EXPECT_EQ(state_of(report, "signature"), CheckState::kOk) << path;
  }
  EXPECT_THAT(text_of(verified(flat())), HasSubstr("absent-build: the build Q8_0 is recorded and not here"));
  EXPECT_THAT(verified(flat()).verdict, testing::StartsWith("intact: 1 of 2 builds of org/Model at 1234, signed by "));
  damage_last(shards_);
  for (const fs::path& path : {flat(), shards_.front(), shards_.back()}) {
    const VerifyReport report = verified(path);
    ASSERT_EQ(report.count(Verdict::kDamage), 1U) << text_of(report);
    EXPECT_EQ(report.findings.front().file, shards_.back().filename().string());
  }
}

TEST_F(FlatDownload, IsRecognisedByItsSumsWhereNamesAreOthers) {
  fs::rename(shards_.back(), flat() / "mine.gguf");
  EXPECT_EQ(verified(flat() / "mine.gguf").count(Verdict::kDamage), 0U);
  EXPECT_EQ(state_of(verified(flat() / "mine.gguf"), "contents"), CheckState::kOk);
  EXPECT_EQ(verified(flat()).count(Verdict::kDamage), 0U);
  damage_last({flat() / "mine.gguf"});
  const VerifyReport report = verified(flat() / "mine.gguf", [](VerifyOptions& options) { options.public_key.reset(); });
  EXPECT_EQ(report.count(Verdict::kDamage), 0U);  // nobody knows what it should be
  EXPECT_EQ(report.count(Verdict::kUnprovable), 1U) << text_of(report);
  EXPECT_EQ(report.intact(), std::nullopt);
  EXPECT_EQ(verified(flat()).findings.front().kind, "missing-shard");
}

TEST_F(FlatDownload, IsFollowedThroughLinks) {
  fs::create_directories(dir_ / "links");
  fs::create_symlink(shards_.back(), dir_ / "links" / "m.gguf");
  EXPECT_EQ(state_of(verified(dir_ / "links" / "m.gguf"), "contents"), CheckState::kOk);
  fs::create_directory_symlink(flat(), dir_ / "repo");
  EXPECT_EQ(state_of(verified(dir_ / "repo" / shards_.back().filename()), "contents"), CheckState::kOk);
  damage_last(shards_);
  EXPECT_EQ(verified(dir_ / "links" / "m.gguf").count(Verdict::kDamage), 1U);
}

TEST_F(FlatDownload, HasItsSumsWithoutAManifest) {
  for (const char* name : {kManifestName, kAttestationName}) fs::remove(flat() / name);
  const auto unsigned_report = [&](const fs::path& path) { return verified(path, [](VerifyOptions& o) { o.public_key.reset(); }); };
  EXPECT_EQ(unsigned_report(shards_.back()).count(Verdict::kUnprovable), 0U) << text_of(unsigned_report(shards_.back()));
  EXPECT_EQ(state_of(unsigned_report(flat()), "sums"), CheckState::kOk);
  damage_last(shards_);
  EXPECT_EQ(unsigned_report(shards_.back()).count(Verdict::kDamage), 1U);
  EXPECT_EQ(unsigned_report(flat()).count(Verdict::kDamage), 1U);
}

TEST_F(FlatDownload, OfRecordsAloneProvesNothing) {
  for (const fs::path& shard : shards_) fs::remove(shard);
  const VerifyReport report = verified(flat());
  EXPECT_EQ(report.count(Verdict::kUnprovable), 1U);
  EXPECT_THAT(text_of(report), HasSubstr("nothing-checked: none of the files that are recorded is here"));
  EXPECT_EQ(report.intact(), std::nullopt);
}

TEST(Verify, WithoutARecordNothingIsProved) {
  const TempDir dir;
  const Manifest manifest = read_manifest(repository().path() / kManifestName);
  fs::create_directories(dir / "a" / "b" / "c");
  const fs::path alone = dir / "a" / "b" / "c" / "alone.gguf";
  fs::copy_file(repository().path() / manifest.builds[1].files[0].name, alone);
  for (const bool with_key : {false, true}) {
    for (const fs::path& path : {alone, alone.parent_path()}) {
      const VerifyReport report = verified(path, [&](VerifyOptions& options) {
        if (!with_key) options.public_key.reset();
      });
      EXPECT_EQ(report.count(Verdict::kDamage), 0U) << text_of(report);
      ASSERT_EQ(report.count(Verdict::kUnprovable), 1U) << text_of(report);
      EXPECT_EQ(report.findings.front().kind, "no-record");
      EXPECT_EQ(report.intact(), std::nullopt);
      EXPECT_THAT(report.verdict, testing::StartsWith("not proved: nothing says what alone.gguf should be; fetch manifest.json"));
      EXPECT_EQ(state_of(report, "contents"), CheckState::kSkipped);
      EXPECT_EQ(state_of(report, "structure"), CheckState::kOk);
    }
  }
}

// One recorded build and, in the same folder, a file of another.
TEST(Verify, AFileBesideAnothersRecordIsNotProved) {
  const TempDir dir;
  test::convert(test::bundled(kModel), test::options_for(dir / "out", {"Q8_0"}));
  const TempDir other;
  test::convert(test::bundled(kModel), test::options_for(other.path(), {"Q5_0"}));
  fs::copy_file(test::file_ending(other.path(), ".gguf"), dir / "out" / "foreign.gguf");
  const auto report_of = [](const fs::path& path) { return verified(path, [](VerifyOptions& o) { o.public_key.reset(); }); };
  EXPECT_EQ(report_of(test::file_ending(dir / "out", "Q8_0.gguf")).count(Verdict::kUnprovable), 0U);
  EXPECT_EQ(report_of(dir / "out" / "foreign.gguf").count(Verdict::kUnprovable), 1U);
  EXPECT_THAT(text_of(report_of(dir / "out")), HasSubstr("no-record: foreign.gguf"));
}

// A list of sums further up may be of other downloads, whose files have the same names.
TEST(Verify, SumsFurtherUpAreTakenByTheirWholeNames) {
  const TempDir dir;
  const Manifest manifest = read_manifest(repository().path() / kManifestName);
  fs::create_directories(dir / "mine");
  fs::copy_file(repository().path() / manifest.builds[1].files[0].name, dir / "mine" / "model.gguf");
  const auto report = [&] { return verified(dir / "mine" / "model.gguf", [](VerifyOptions& o) { o.public_key.reset(); }); };
  test::write_text(dir / kSumsName, std::string(64, '0') + "  model.gguf\n");
  EXPECT_EQ(report().count(Verdict::kDamage), 0U) << text_of(report());
  EXPECT_EQ(report().count(Verdict::kUnprovable), 1U);
  test::write_text(dir / kSumsName, std::string(64, '0') + "  mine/model.gguf\n");
  EXPECT_EQ(report().count(Verdict::kDamage), 1U);
}

// Without a record too, each shard has its own damage, and none hides that of another.
TEST(Verify, EveryShardIsLookedAt) {
  const TempDir dir;
  const Manifest manifest = read_manifest(repository().path() / kManifestName);
  fs::copy(repository().path() / fs::path(manifest.builds[0].files[0].name).parent_path(), dir / "q4");
  const std::vector<fs::path> shards = shards_of(dir / "q4", manifest);
  ASSERT_GT(shards.size(), 3U);
  Patch(shards[1]).flip(0);
  const gguf::Header header = gguf::read_header(InputFile(shards[2]));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto norm = std::ranges::find(header.tensors, DType::F32, &TensorInfo::dtype);
  ASSERT_NE(norm, header.tensors.end());
  {
    Patch patch(shards[2]);
    std::memcpy(patch.bytes().data() + norm->file_offset, &nan, sizeof nan);
  }
  fs::remove(shards.back());
  for (const fs::path& path : {dir / "q4", shards.front(), shards[2]}) {
    const std::string text = text_of(verified(path, [](VerifyOptions& options) { options.public_key.reset(); }));
    EXPECT_THAT(text, HasSubstr("damaged-header: " + shards[1].filename().string())) << path;
    EXPECT_THAT(text, HasSubstr("nonfinite: " + shards[2].filename().string())) << path;
    EXPECT_THAT(text, HasSubstr("missing-shard: " + shards.back().filename().string())) << path;
  }
}

}  // namespace
}  // namespace quern
