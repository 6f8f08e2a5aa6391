#pragma once

namespace quern {

// The settings of a build that name the importance matrix and the statistics for error feedback by their sums, and what the statistics are
// of: a text and a mode. Statistics that were collected on the way have no sum of their own.
inline constexpr const char* kImatrixKey = "quern.imatrix.sha256";
inline constexpr const char* kStatisticsKey = "quern.feedback.statistics_sha256";
inline constexpr const char* kFeedbackModeKey = "quern.feedback.mode";
inline constexpr const char* kFeedbackTextNameKey = "quern.feedback.text";
inline constexpr const char* kFeedbackTextKey = "quern.feedback.text_sha256";
inline constexpr const char* kFeedbackTokensKey = "quern.feedback.tokens";
inline constexpr const char* kRecipeJsonKey = "quern.recipe.json";

}  // namespace quern
