import Foundation
import Glibc

/// The command `ironling` beside this executable: it can be any of the services, and holds the simulator that none of
/// them does.
enum WholeCommand {
    /// Goes on as `ironling` under the name `program`, with the same arguments, descriptors and process id. Returns only
    /// when that is not possible, with why.
    static func become(_ program: String) -> UsageError {
        let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let path = folder.appendingPathComponent("ironling").path
        let arguments = ([program] + CommandLine.arguments.dropFirst()).map { strdup($0) } + [nil]
        execv(path, arguments)
        let reason = String(cString: strerror(errno))
        for argument in arguments { free(argument) }
        return UsageError(
            "what is asked for needs a simulator, which is in the command ironling, and \(path) cannot be run: \(reason)"
        )
    }
}
