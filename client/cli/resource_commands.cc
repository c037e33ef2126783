#include "client/cli/resource_commands.h"

#include "absl/strings/str_join.h"
#include "client/cli/api.h"

namespace onegrid::cli {
namespace {

absl::Status GetOne(const Program& program, const std::string& name) {
  ASSIGN_OR_RETURN(const auto api, program.Open());
  ASSIGN_OR_RETURN(const MessagePtr found, GetResource(*api, name));
  std::cout << (program.json ? ToJson(*found) : found->DebugString());
  return absl::OkStatus();
}

absl::Status ListAll(const Program& program, const std::string& collection) {
  ASSIGN_OR_RETURN(const auto api, program.Open());
  ASSIGN_OR_RETURN(const std::vector<MessagePtr> all,
                   ListResources(*api, collection));
  if (program.json) std::cout << "[\n";
  for (size_t i = 0; i < all.size(); ++i) {
    if (program.json) {
      std::cout << (i == 0 ? "" : ",\n") << ToJson(*all[i]);
      continue;
    }
    const google::protobuf::Message& message = *all[i];
    const auto* descriptor = message.GetDescriptor();
    const auto* reflection = message.GetReflection();
    std::cout << reflection->GetString(message,
                                       descriptor->FindFieldByName("name"));
    if (const auto* state = descriptor->FindFieldByName("state")) {
      std::cout << " " << reflection->GetEnum(message, state)->name();
    }
    std::cout << "\n";
  }
  if (program.json) std::cout << "]\n";
  return absl::OkStatus();
}

}  // namespace

// Commands that take one resource or collection.
void AddResourceCommands(CLI::App& app, Program& program) {
  using Action = std::function<absl::Status(const std::string&)>;
  const auto add = [&](const char* name, const char* help,
                       const std::string& argument_help, bool required,
                       Action action) {
    CLI::App* command = app.add_subcommand(name, help);
    auto argument = std::make_shared<std::string>();
    CLI::Option* option = command->add_option("name", *argument, argument_help);
    if (required) option->required();
    command->callback([&program, argument, action] {
      program.action = [argument, action] { return action(*argument); };
    });
  };
  add("get", "print one resource", "e.g. tuningJobs/t1", true,
      [&program](const std::string& name) { return GetOne(program, name); });
  add("list", "print all resources of a collection",
      absl::StrJoin(CollectionNames(), ", "), true,
      [&program](const std::string& name) { return ListAll(program, name); });
  add("watch", "print events until a resource ends",
      "resource; all events when left out", false,
      [&program](const std::string& name) -> absl::Status {
        ASSIGN_OR_RETURN(const auto api, program.Open());
        return Watch(*api, name, program.json,
                     {&std::cout, isatty(STDOUT_FILENO) != 0});
      });
  add("cancel", "cancel a tuning job or a pipeline run",
      "tuningJobs/ID or pipelineRuns/ID", true,
      [&program](const std::string& name) -> absl::Status {
        ASSIGN_OR_RETURN(const auto api, program.Open());
        return CancelResource(*api, name);
      });
}

}  // namespace onegrid::cli
