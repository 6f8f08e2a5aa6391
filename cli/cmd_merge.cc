#include "cli/cli.h"

namespace quern::cli {

void add_merge(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand("merge", "not finished");
  verb->group("Build");
  verb->callback([&context] { context.command = []() -> int { throw Error(ErrorKind::kUnsupported, "this verb is not finished"); }; });
}

}  // namespace quern::cli
