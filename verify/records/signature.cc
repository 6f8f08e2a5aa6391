#include "verify/records/signature.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/json_tree.h"
#include "formats/base/sha256.h"

// OpenSSL computes; what is ours is that there is one way to read everything. A signature is over the type and the bytes of the payload
// with their lengths (pre-authentication), never over the envelope's JSON, whose spelling may vary. base64 is decoded by a lenient library
// and accepted only if encoding the result gives the same text again. The key id in an envelope is a hint that anybody can write, so it is
// not looked at: every signature is tried with the key that the user trusts.
//
// Private keys are made with an exclusive open, readable by their owner alone from the first byte on, and no key is ever replaced. A key
// with a passphrase is refused, because a library must not ask questions on the terminal.

namespace quern {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr uint64_t kMaxPemBytes = 64 << 10;
constexpr int kMaxDepth = 16;
constexpr const char* kStatementType = "https://in-toto.io/Statement/v1";
constexpr const char* kPredicateType = "urn:quern:build:1";

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Pkey = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using PkeyContext = std::unique_ptr<EVP_PKEY_CTX, Freed<EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Freed<EVP_MD_CTX_free>>;
using Bio = std::unique_ptr<BIO, Freed<BIO_free_all>>;

// A failure of the library that no input explains.
void require(bool ok, const char* what) {
  if (!ok) throw Error(ErrorKind::kInternal, std::string("OpenSSL cannot ") + what);
}

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

int refuse_passphrase(char*, int, int, void*) { return -1; }

using ReadPem = EVP_PKEY* (*)(BIO*, EVP_PKEY**, pem_password_cb*, void*);

Pkey read_pem(const fs::path& path, ReadPem read, const char* what) {
  const std::string pem = read_text_file(path, kMaxPemBytes);
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  require(bio != nullptr, "read a key");
  Pkey key(read(bio.get(), nullptr, refuse_passphrase, nullptr));
  if (key == nullptr || EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519) {
    throw Error(ErrorKind::kFormat, std::string("is not ") + what).file(path.string());
  }
  return key;
}

void write_owner_only(const fs::path& path, std::string_view text) {
  const auto fail = [&path](const char* what) {
    throw Error(ErrorKind::kIo, std::string(what) + ": " + std::strerror(errno)).file(path.string());
  };
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (fd < 0) fail("cannot create");
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  ::close(fd);
  if (written) return;
  ::unlink(path.c_str());
  fail("cannot write");
}

}  // namespace

struct Ed25519Key::State {
  Pkey key;
};

Ed25519Key::Ed25519Key(std::unique_ptr<State> state) : state_(std::move(state)) {}
Ed25519Key::~Ed25519Key() = default;
Ed25519Key::Ed25519Key(Ed25519Key&&) noexcept = default;

Ed25519Key Ed25519Key::generate() {
  const PkeyContext context(EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, nullptr));
  EVP_PKEY* key = nullptr;
  require(context != nullptr && EVP_PKEY_keygen_init(context.get()) == 1 && EVP_PKEY_keygen(context.get(), &key) == 1, "make a key");
  return Ed25519Key(std::make_unique<State>(State{Pkey(key)}));
}

Ed25519Key Ed25519Key::read_private(const fs::path& pem) {
  return Ed25519Key(
      std::make_unique<State>(State{read_pem(pem, PEM_read_bio_PrivateKey, "an unencrypted Ed25519 private key in PEM (quern keygen)")}));
}

Ed25519Key Ed25519Key::read_public(const fs::path& pem) {
  return Ed25519Key(std::make_unique<State>(State{read_pem(pem, PEM_read_bio_PUBKEY, "an Ed25519 public key in PEM")}));
}

std::string Ed25519Key::sign(std::string_view message) const {
  const DigestContext context(EVP_MD_CTX_new());
  std::string signature(64, '\0');
  size_t size = signature.size();
  const bool ok =
      context != nullptr && EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, state_->key.get()) == 1 &&
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, bytes_of(message), message.size()) == 1;
  require(ok && size == signature.size(), "sign");
  return signature;
}

bool Ed25519Key::verify(std::string_view message, std::string_view signature) const {
  const DigestContext context(EVP_MD_CTX_new());
  require(context != nullptr && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, state_->key.get()) == 1,
          "check a signature");
  return EVP_DigestVerify(context.get(), bytes_of(signature), signature.size(), bytes_of(message), message.size()) == 1;
}

std::string Ed25519Key::private_pem() const {
  const Bio bio(BIO_new(BIO_s_mem()));
  require(bio != nullptr && PEM_write_bio_PKCS8PrivateKey(bio.get(), state_->key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1,
          "write a private key");
  return text_of(bio.get());
}

std::string Ed25519Key::public_pem() const {
  const Bio bio(BIO_new(BIO_s_mem()));
  require(bio != nullptr && PEM_write_bio_PUBKEY(bio.get(), state_->key.get()) == 1, "write a public key");
  return text_of(bio.get());
}

std::string Ed25519Key::id() const {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(state_->key.get(), &der);
  require(size > 0, "encode a public key");
  const std::string bytes(reinterpret_cast<const char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return sha256_hex(bytes);
}

KeyFiles key_files(const fs::path& private_pem) { return {private_pem, fs::path(private_pem).replace_extension(".pub.pem")}; }

Ed25519Key write_new_key(const KeyFiles& files) {
  for (const fs::path& path : {files.private_pem, files.public_pem}) {
    if (fs::exists(fs::symlink_status(path))) throw Error(ErrorKind::kUsage, "exists; a key is never replaced").file(path.string());
  }
  Ed25519Key key = Ed25519Key::generate();
  write_owner_only(files.private_pem, key.private_pem());
  write_file_atomically(files.public_pem, key.public_pem(), OutputFile::Overwrite::kRefuse);
  return key;
}

std::string base64_encode(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes_of(bytes), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  return text;
}

std::string base64_decode(std::string_view text) {
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes(text.size() / 4 * 3, '\0');
  const int size = text.size() % 4 != 0
                       ? -1
                       : EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), bytes_of(text), static_cast<int>(text.size()));
  bytes.resize(bytes.size() - std::min(bytes.size(), padding));
  if (size < 0 || base64_encode(bytes) != text) throw Error(ErrorKind::kFormat, "is not base64");
  return bytes;
}

std::string pre_authentication(std::string_view payload_type, std::string_view payload) {
  return "DSSEv1 " + std::to_string(payload_type.size()) + " " + std::string(payload_type) + " " + std::to_string(payload.size()) + " " +
         std::string(payload);
}

std::string signed_envelope(const Ed25519Key& key, std::string_view payload) {
  const std::string signature = key.sign(pre_authentication(kStatementPayloadType, payload));
  const ordered_json envelope = {{"payloadType", kStatementPayloadType},
                                 {"payload", base64_encode(payload)},
                                 {"signatures", {{{"keyid", key.id()}, {"sig", base64_encode(signature)}}}}};
  return envelope.dump() + "\n";
}

Envelope parse_envelope(std::string_view text) {
  try {
    const json root = parse_json_tree(text, kMaxDepth);
    Envelope envelope{root.at("payloadType").get<std::string>(), base64_decode(root.at("payload").get<std::string>()), {}};
    for (const json& signature : root.at("signatures")) {
      envelope.signatures.push_back({signature.value("keyid", ""), base64_decode(signature.at("sig").get<std::string>())});
    }
    return envelope;
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("is not a DSSE envelope: ") + printable(error.what()));
  }
}

bool is_signed_by(const Envelope& envelope, const Ed25519Key& key) {
  const std::string message = pre_authentication(envelope.payload_type, envelope.payload);
  for (const Envelope::Signature& signature : envelope.signatures) {
    if (key.verify(message, signature.bytes)) return true;
  }
  return false;
}

std::string make_statement(std::span<const Subject> subjects, std::string_view predicate) {
  ordered_json list = ordered_json::array();
  for (const Subject& subject : subjects) list.push_back({{"name", subject.name}, {"digest", {{"sha256", subject.sha256}}}});
  const ordered_json statement = {
      {"_type", kStatementType}, {"subject", list}, {"predicateType", kPredicateType}, {"predicate", ordered_json::parse(predicate)}};
  return statement.dump();
}

std::vector<Subject> statement_subjects(std::string_view statement) {
  try {
    const json root = parse_json_tree(statement, kMaxDepth);
    if (root.at("_type") != kStatementType) throw Error(ErrorKind::kFormat, "is not an in-toto statement of version 1");
    std::vector<Subject> subjects;
    for (const json& subject : root.at("subject")) {
      subjects.push_back({subject.at("name").get<std::string>(), subject.at("digest").at("sha256").get<std::string>()});
    }
    return subjects;
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("is not an in-toto statement: ") + printable(error.what()));
  }
}

}  // namespace quern
