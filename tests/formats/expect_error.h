#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "formats/base/error.h"

// The statement throws quern::Error of this kind, in one line that contains `part`.
#define EXPECT_ERROR(statement, expected_kind, part)                                                \
  do {                                                                                              \
    try {                                                                                           \
      static_cast<void>(statement);                                                                 \
      ADD_FAILURE() << "no error from " #statement;                                                 \
    } catch (const ::quern::Error& e) {                                                             \
      EXPECT_EQ(e.kind(), expected_kind) << e.what();                                               \
      EXPECT_THAT(std::string(e.what()), ::testing::HasSubstr(part));                               \
      EXPECT_THAT(std::string(e.what()), ::testing::Not(::testing::HasSubstr("\n"))) << "one line"; \
    }                                                                                               \
  } while (false)
