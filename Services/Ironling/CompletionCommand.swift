import AttentionService
import ExpertsService
import GatewayService
import SamplerService
import ServiceSupport

/// `ironling completion` and `ironling man`: the table of options for shells and for readers.
enum CompletionCommand {
    static let options = CommandLineOptions(
        program: "ironling completion",
        summary: "Prints a script that lets a shell complete commands, options and their values.",
        options: [
            CommandLineOption(
                "shell", value: "SHELL", help: "bash, zsh or fish", choices: ShellCompletion.allCases.map(\.rawValue))
        ], position: "shell")

    static let manualOptions = CommandLineOptions(
        program: "ironling man",
        summary:
            "Prints the manual page of all commands in roff. To read it: ironling man > ironling.1; man -l ironling.1",
        options: [])

    private static let programs = [
        GatewayService.options, AttentionService.options, ExpertsService.options, SamplerService.options,
    ]

    static func run(_ values: OptionValues) throws(UsageError) {
        guard let shell = ShellCompletion(rawValue: try values.required("shell")) else { return }
        StandardStream.output.write(shell.script(subcommands.map(\.entry), programs: programs))
    }

    static func printManual() {
        StandardStream.output.write(ManualPage.text(subcommands.map(\.entry), programs: programs))
    }
}
