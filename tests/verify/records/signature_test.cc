#include "verify/records/signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "tests/formats/builders.h"

namespace quern {
namespace {

using test::TempDir;
using testing::HasSubstr;

// RFC 8032 section 7.1, TEST 2: the key in PKCS 8 and SubjectPublicKeyInfo form, the message 0x72 and its signature.
constexpr const char* kRfcPrivate =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n-----END PRIVATE KEY-----\n";
constexpr std::string_view kRfcSignature =
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    text += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    text += "0123456789abcdef"[c & 15];
  }
  return text;
}

TEST(Signature, IsTheOneOfTheStandard) {
  const TempDir dir;
  test::write_text(dir / "key.pem", kRfcPrivate);
  const Ed25519Key key = Ed25519Key::read_private(dir / "key.pem");
  EXPECT_EQ(hex(key.sign("\x72")), kRfcSignature);
  EXPECT_TRUE(key.verify("\x72", key.sign("\x72")));
  EXPECT_FALSE(key.verify("\x73", key.sign("\x72")));
}

TEST(Signature, OfANewKeyIsCheckedWithItsPublicHalf) {
  const TempDir dir;
  const KeyFiles files = key_files(dir / "release.pem");
  const Ed25519Key key = write_new_key(files);
  EXPECT_EQ(files.public_pem.filename(), "release.pub.pem");
  struct stat info {};
  ASSERT_EQ(stat(files.private_pem.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  const Ed25519Key reader = Ed25519Key::read_public(files.public_pem);
  EXPECT_EQ(reader.id(), key.id());
  EXPECT_TRUE(reader.verify("message", Ed25519Key::read_private(files.private_pem).sign("message")));
  EXPECT_FALSE(Ed25519Key::generate().verify("message", key.sign("message")));
}

TEST(Signature, KeysAreNeverReplacedAndNeverTakenForEachOther) {
  const TempDir dir;
  const KeyFiles files = key_files(dir / "k.pem");
  write_new_key(files);
  const std::string before = read_text_file(files.private_pem, 1 << 16);
  EXPECT_THROW(write_new_key(files), Error);
  EXPECT_EQ(read_text_file(files.private_pem, 1 << 16), before);
  EXPECT_THROW(Ed25519Key::read_private(files.public_pem), Error);
  EXPECT_THROW(Ed25519Key::read_public(files.private_pem), Error);
  test::write_text(dir / "text.pem", "no key");
  EXPECT_THROW(Ed25519Key::read_public(dir / "text.pem"), Error);
}

TEST(Signature, EnvelopesAreThoseOfDsse) {
  // The example of the DSSE protocol.
  EXPECT_EQ(pre_authentication("http://example.com/HelloWorld", "hello world"), "DSSEv1 29 http://example.com/HelloWorld 11 hello world");
  const Ed25519Key key = Ed25519Key::generate();
  const std::vector<Subject> subjects = {{"a.gguf", std::string(64, '1')}, {"Q4_K_M/b.gguf", std::string(64, '2')}};
  const std::string text = signed_envelope(key, make_statement(subjects, R"({"quern_version": "1"})"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  const Envelope envelope = parse_envelope(text);
  EXPECT_EQ(envelope.payload_type, "application/vnd.in-toto+json");
  EXPECT_TRUE(is_signed_by(envelope, key));
  EXPECT_FALSE(is_signed_by(envelope, Ed25519Key::generate()));
  const std::vector<Subject> read = statement_subjects(envelope.payload);
  ASSERT_EQ(read.size(), 2U);
  EXPECT_EQ(read[1].name, "Q4_K_M/b.gguf");
  EXPECT_THAT(envelope.payload, HasSubstr("https://in-toto.io/Statement/v1"));
  Envelope changed = envelope;
  changed.payload[changed.payload.find("b.gguf")] = 'c';
  EXPECT_FALSE(is_signed_by(changed, key));
}

TEST(Signature, BrokenEnvelopesAreRefused) {
  for (const char* text :
       {"", "{}", "[]", R"({"payloadType":"t","payload":"*","signatures":[]})", R"({"payloadType":"t","payload":"QQ=","signatures":[]})",
        R"({"payloadType":"t","payload":"QQ==","signatures":1})", R"({"payloadType":"t","payload":"QR==","signatures":[]})",
        R"({"payload":"","payload":"","signatures":[]})"}) {
    EXPECT_THROW(parse_envelope(text), Error) << text;
  }
}

TEST(Signature, Base64IsStrictBothWays) {
  for (const std::string bytes : {"", "f", "fo", "foo", "foob", "fooba", "foobar"}) EXPECT_EQ(base64_decode(base64_encode(bytes)), bytes);
  EXPECT_EQ(base64_encode("foob"), "Zm9vYg==");
  for (const char* text : {"Zm9vYg", "Zm9vYg=", "Zm9v Yg==", "Zm9vYh==", "====", "Zm9v\n"})
    EXPECT_THROW(base64_decode(text), Error) << text;
}

}  // namespace
}  // namespace quern
