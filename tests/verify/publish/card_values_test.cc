#include "verify/publish/card_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/formats/expect_error.h"
#include "verify/publish/publication.h"

namespace quern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(CardValues, IdsAreThoseOfTheHub) {
  for (const char* id : {"gpt2", "org/Model", "deepseek-ai/DeepSeek-V4-Flash", "a_b/c.d-1"}) EXPECT_EQ(why_not_hub_id(id), "") << id;
  for (const char* id : {"", "a/b/c", "org/", "/model", "./model", "~/model", "org/my model", "org/-x", "org/x.", "org/a--b", "org/a..b",
                         "org/x.git", "org/\xC3\xA9", "C:\\models"}) {
    EXPECT_THAT(why_not_hub_id(id), HasSubstr("is no hub id")) << id;
  }
  EXPECT_NE(why_not_hub_id("org/" + std::string(93, 'a')), "");
  EXPECT_THAT(why_not_hub_id("https://huggingface.co/org/Model"), HasSubstr("is an address and no hub id; the id is 'org/Model'"));
}

TEST(CardValues, LicencesAreThoseOfTheHub) {
  for (const char* id : {"apache-2.0", "mit", "llama3.1", "other"}) EXPECT_EQ(why_not_license(id), "") << id;
  EXPECT_THAT(why_not_license("Apache-2.0"), HasSubstr("did you mean 'apache-2.0'?"));
  EXPECT_THAT(why_not_license("gpl3.0"), HasSubstr("did you mean 'gpl-3.0'?"));
  EXPECT_THAT(why_not_license("my own terms of use"), HasSubstr("'other' stands for all that are not in its list"));
  EXPECT_EQ(license_name_of("Llama 3.1 Community License"), "llama-3.1-community-license");
  EXPECT_EQ(license_name_of("(x)"), "x");
}

TEST(CardValues, RevisionsAreCommitsBranchesOrTags) {
  for (const char* revision : {"main", "1234abcd", "refs/pr/1", "v1.0+fix"}) EXPECT_EQ(why_not_revision(revision), "") << revision;
  for (const char* revision : {"", "my branch", "`x`", "-f", "a..b", "x\ny"}) EXPECT_NE(why_not_revision(revision), "") << revision;
}

TEST(CardValues, WhatTheModelSaysIsFittedOrNamed) {
  Metadata metadata;
  metadata.set("general.license", std::string("apache-2.0,my-terms"));
  metadata.set("general.languages", std::vector<std::string>{"en", "English", "zho", "code", "pt-BR"});
  EXPECT_THAT(licenses_of(metadata), ElementsAre("apache-2.0", "my-terms"));
  EXPECT_THAT(languages_of(metadata), ElementsAre("en", "zho", "code"));
  EXPECT_THAT(card_warnings(metadata), ElementsAre(HasSubstr("'my-terms' is no licence"), HasSubstr("'English', 'pt-BR'")));
  metadata.set("general.license", std::string("mit"));
  metadata.set("general.languages", std::vector<std::string>{"en"});
  EXPECT_THAT(card_warnings(metadata), ElementsAre());
  EXPECT_THAT(card_warnings({}), ElementsAre());
}

TEST(CardValues, AreCheckedBeforeTheWork) {
  PublicationOptions options;
  options.base_model = "org/Model";
  options.revision = "main";
  options.license = "mit";
  EXPECT_NO_THROW(check_card(options));
  const auto refused = [&](std::string PublicationOptions::*member, const char* value) {
    PublicationOptions other = options;
    other.*member = value;
    check_card(other);
  };
  EXPECT_ERROR(refused(&PublicationOptions::base_model, "not an id!"), ErrorKind::kUsage, "--base-model: 'not an id!' is no hub id");
  EXPECT_ERROR(refused(&PublicationOptions::license, "MIT"), ErrorKind::kUsage, "--license: 'MIT' is no licence");
  EXPECT_ERROR(refused(&PublicationOptions::revision, "a b"), ErrorKind::kUsage, "--revision: 'a b' is no commit");
}

}  // namespace
}  // namespace quern
