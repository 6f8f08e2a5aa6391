#include "formats/base/sha256.h"

#include <gtest/gtest.h>

#include "tests/formats/builders.h"

namespace quern {
namespace {

// FIPS 180-2, appendix B.
TEST(Sha256, HashesTheStandardExamples) {
  EXPECT_EQ(sha256_hex(std::string_view{}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(test::to_bytes("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(test::to_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, DoesNotDependOnThePiecesAndStartsAnew) {
  Sha256 sha;
  for (int round = 0; round < 2; ++round) {
    sha.update(test::to_bytes("a"));
    sha.update({});
    sha.update(test::to_bytes("bc"));
    EXPECT_EQ(sha.finish_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  }
}

}  // namespace
}  // namespace quern
