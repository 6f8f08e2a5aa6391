#include "formats/base/sha256.h"

#include <openssl/evp.h>

#include <array>
#include <new>

#include "formats/base/error.h"

namespace quern {

struct Sha256::Context {
  Context() : md(EVP_MD_CTX_new(), EVP_MD_CTX_free) { start(); }
  explicit Context(const EVP_MD_CTX* from) : md(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    require(md != nullptr && EVP_MD_CTX_copy_ex(md.get(), from) == 1);
  }

  void start() { require(md != nullptr && EVP_DigestInit_ex(md.get(), EVP_sha256(), nullptr) == 1); }

  // Nothing but an allocation can fail at the start.
  static void require(bool done) {
    if (!done) throw std::bad_alloc();
  }

  std::string finish_hex() {
    std::array<unsigned char, 32> digest;
    QUERN_CHECK(EVP_DigestFinal_ex(md.get(), digest.data(), nullptr) == 1);
    std::string hex;
    for (const unsigned char byte : digest) {
      hex += "0123456789abcdef"[byte >> 4];
      hex += "0123456789abcdef"[byte & 15];
    }
    return hex;
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> md;
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(std::span<const std::byte> bytes) {
  QUERN_CHECK(EVP_DigestUpdate(context_->md.get(), bytes.data(), bytes.size()) == 1);
}

std::string Sha256::finish_hex() {
  const std::string hex = context_->finish_hex();
  context_->start();
  return hex;
}

std::string Sha256::current_hex() const { return Context(context_->md.get()).finish_hex(); }

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.update(bytes);
  return sha.finish_hex();
}

std::string sha256_hex(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

}  // namespace quern
