#include "verify/report/making.h"

#include <algorithm>

#include "formats/statistics/statistics_record.h"
#include "verify/records/setting_keys.h"

namespace quern {

std::optional<FeedbackFacts> feedback_of(const Metadata& settings) {
  const std::optional<std::string> mode = settings.find_string(kFeedbackModeKey);
  if (!mode) return std::nullopt;
  return FeedbackFacts{*mode, settings.find_string(kFeedbackTextNameKey).value_or(""), settings.find_int(kFeedbackTokensKey).value_or(0)};
}

void add_fed_build(const std::string& label, const std::optional<FeedbackFacts>& feedback, std::vector<FedBuilds>& kinds) {
  if (!feedback) return;
  auto same = std::ranges::find(kinds, *feedback, &FedBuilds::feedback);
  if (same == kinds.end()) same = kinds.insert(kinds.end(), {*feedback, {}});
  same->labels.push_back(label);
}

std::string feedback_sentence(const FedBuilds& builds, const std::string& text) {
  const auto& [feedback, labels] = builds;
  const bool sequential = feedback.mode == kSequentialMode;
  return listed(labels) + (labels.size() == 1 ? " is" : " are") + " encoded with error feedback" +
         (sequential ? ", layer after layer" : "") +
         ": the rounding error of every weight is made up for by the weights after it, for the inputs that " +
         std::to_string(feedback.n_tokens) + " tokens of " + text + " give" +
         (sequential ? ", and every layer makes up for the layers before it" : "") + ". File format and speed are the usual ones.";
}

std::string listed(const std::vector<std::string>& items) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) out += (i == 0 ? "" : i + 1 == items.size() ? " and " : ", ") + items[i];
  return out;
}

std::string shell_word(std::string_view text) {
  constexpr std::string_view kPlain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/+=:@%-";
  if (!text.empty() && text.front() != '-' && text.find_first_not_of(kPlain) == std::string_view::npos) return std::string(text);
  std::string out = text.starts_with('-') ? "'./" : "'";
  for (const char c : text) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

std::vector<std::string> integrity_commands(bool is_signed) {
  return {"sha256sum -c SHA256SUMS", std::string("quern verify .") + (is_signed ? " --key PUB.pem" : "")};
}

std::string derivation_command(const std::vector<FedBuilds>& fed) {
  const std::string name = fed.empty() ? "" : fed.front().feedback.text;
  const std::string text = fed.empty() ? "" : " --calib-text " + (name.empty() ? "TEXT" : shell_word(name));
  return "quern verify . --source CHECKPOINT_DIR --sample 5%" + text;
}

}  // namespace quern
