#include <iostream>
#include <memory>

#include "cli/cli.h"
#include "verify/records/signature.h"

namespace quern::cli {
namespace {

int run_keygen(const std::string& path) {
  const KeyFiles files = key_files(path);
  std::cerr << "quern: writing " << printable(files.private_pem.string()) << " (keep it secret) and "
            << printable(files.public_pem.string()) << " (publish it)\n";
  const Ed25519Key key = write_new_key(files);
  std::cout << key.id() << '\n';
  return 0;
}

}  // namespace

void add_keygen(CLI::App& app, Context& context) {
  const auto path = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("keygen", "Make a key pair to sign builds with");
  verb->group("Publish")->footer("quern keygen -o release.pem     (prints the id of the key)");
  verb->add_option("-o,--output", *path, "private key; its public half: KEY.pub.pem")->type_name("KEY.pem")->required()->group("Output");
  verb->callback([path, &context] { context.command = [path] { return run_keygen(*path); }; });
}

}  // namespace quern::cli
