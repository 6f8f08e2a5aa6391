#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// Signatures over published folders: Ed25519 keys in PEM files, DSSE envelopes and in-toto statements, all as other tools read them.
// docs/formats/manifest.md shows how to check one with openssl alone. Sources: RFC 8032, RFC 8410; secure-systems-lab/dsse
// protocol.md; in-toto/attestation spec/v1.

// A public key, or a pair when it can sign.
class Ed25519Key {
 public:
  static Ed25519Key generate();
  // Throw kFormat when the file holds no unencrypted Ed25519 key of that kind.
  static Ed25519Key read_private(const std::filesystem::path& pem);
  static Ed25519Key read_public(const std::filesystem::path& pem);
  ~Ed25519Key();
  Ed25519Key(Ed25519Key&&) noexcept;

  std::string sign(std::string_view message) const;  // 64 bytes; needs the private half
  bool verify(std::string_view message, std::string_view signature) const;
  std::string private_pem() const;  // PKCS 8
  std::string public_pem() const;   // SubjectPublicKeyInfo
  std::string id() const;           // SHA-256 of the DER form of the public half, in hex

 private:
  struct State;
  explicit Ed25519Key(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct KeyFiles {
  std::filesystem::path private_pem;
  std::filesystem::path public_pem;
};
// "DIR/NAME.pem" and "DIR/NAME.pub.pem".
KeyFiles key_files(const std::filesystem::path& private_pem);
// Writes a new pair, the private half readable by its owner only. Throws kUsage when either file exists.
Ed25519Key write_new_key(const KeyFiles& files);

std::string base64_encode(std::string_view bytes);
std::string base64_decode(std::string_view text);  // strict: padding, alphabet, no white space; throws kFormat

inline constexpr const char* kStatementPayloadType = "application/vnd.in-toto+json";

// What DSSE signs: "DSSEv1 LEN(type) type LEN(payload) payload".
std::string pre_authentication(std::string_view payload_type, std::string_view payload);

struct Envelope {
  struct Signature {
    std::string key_id;
    std::string bytes;
  };
  std::string payload_type;
  std::string payload;
  std::vector<Signature> signatures;
};
std::string signed_envelope(const Ed25519Key& key, std::string_view payload);  // one line of JSON and a newline
Envelope parse_envelope(std::string_view json);                                // throws kFormat
// Whether one of the signatures is by this key over this payload.
bool is_signed_by(const Envelope& envelope, const Ed25519Key& key);

struct Subject {
  std::string name;
  std::string sha256;
};
// in-toto statement v1; predicate is a JSON object as text.
std::string make_statement(std::span<const Subject> subjects, std::string_view predicate);
std::vector<Subject> statement_subjects(std::string_view statement);  // throws kFormat

}  // namespace quern
