#define PCRE2_CODE_UNIT_WIDTH 8
#include "formats/base/name_pattern.h"

#include <pcre2.h>

#include "formats/base/error.h"

namespace quern {
namespace {

constexpr uint32_t kMaxSteps = 100000;  // names have at most 63 bytes

}  // namespace

void NamePattern::FreeCode::operator()(pcre2_real_code_8* code) const noexcept { pcre2_code_free(code); }

NamePattern::NamePattern(const std::string& expression) : expression_(expression) {
  int error = 0;
  size_t offset = 0;
  code_.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(), PCRE2_DOLLAR_ENDONLY, &error, &offset, nullptr));
  if (code_ != nullptr) return;
  char reason[256] = "";
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(reason), sizeof reason);
  throw Error(ErrorKind::kUsage,
              "'" + printable(expression) + "' is not a regular expression: " + reason + " at byte " + std::to_string(offset));
}

bool NamePattern::found_in(std::string_view name) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(pcre2_match_data_create(1, nullptr),
                                                                                 pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(pcre2_match_context_create(nullptr),
                                                                                          pcre2_match_context_free);
  QUERN_CHECK(data != nullptr && context != nullptr);
  pcre2_set_match_limit(context.get(), kMaxSteps);
  const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0, data.get(), context.get());
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) throw Error(ErrorKind::kUsage, "'" + printable(expression_) + "' takes too long to search in a tensor name");
  return true;
}

}  // namespace quern
