/// `IRONLING_*` variables: what options take from them, and what is said of the others.
public struct OptionEnvironment: Sendable {
    private let variables: [String: String]

    /// The variables of a process.
    public init(_ variables: [String: String]) { self.variables = variables }

    /// The value of an option. An empty variable is an absent one, unless its option keeps somebody out.
    func value(of option: CommandLineOption) throws(UsageError) -> String? {
        guard let text = variables[option.environmentName], !isOfKubernetes(option.environmentName) else { return nil }
        guard text.isEmpty else { return text }
        guard !option.guards else {
            throw UsageError(
                "\(option.environmentName) is empty: it names \(option.value ?? "a file"), or is not set at all when "
                    + "nobody is to be kept out")
        }
        return nil
    }

    /// What is to be said of variables that are ours by name and were not read: those that Kubernetes makes for a
    /// Service whose name begins with ours, and those that no program of ours knows.
    public func notices(program: String) -> [String] {
        let ours = variables.keys.filter { $0.hasPrefix("IRONLING_") }.sorted()
        let foreign = ours.filter(isOfKubernetes)
        var notices: [String] = []
        if let first = foreign.first(where: { variables[$0]?.contains("://") == true }) ?? foreign.first {
            let others = foreign.count > 1 ? " and \(foreign.count - 1) more" : ""
            notices.append(
                "\(program): \(first)=\(variables[first]?.prefix(64) ?? "")\(others) describe a Service of Kubernetes "
                    + "and are left aside; enableServiceLinks: false in the pod keeps them away")
        }
        let known = Self.known
        for name in ours where !known.contains(name) && !isOfKubernetes(name) {
            notices.append(
                "\(program): \(name) is no option of ironling and is left aside\(Spelling.hint(name, among: known))")
        }
        return notices
    }

    /// The variables that services of `up` get: none that was left aside, and none of `options`, which `up` has turned
    /// into flags and which mean other things there.
    public func forServices(without options: [String]) -> [String: String] {
        let taken = Set(options.map { CommandLineOption($0, help: "").environmentName })
        let known = Set(Self.known)
        return variables.filter { name, _ in
            guard name.hasPrefix("IRONLING_") else { return true }
            return known.contains(name) && !taken.contains(name) && !isOfKubernetes(name)
        }
    }

    private static var known: [String] {
        KnownOptions.all.map { CommandLineOption($0, help: "").environmentName } + KnownOptions.variables
    }

    /// True for `…_PORT=tcp://…`, `…_SERVICE_HOST`, `…_SERVICE_PORT_HTTP`, `…_PORT_8000_TCP_ADDR` and the like, which
    /// Kubernetes sets in every pod of a Service's namespace.
    private func isOfKubernetes(_ name: String) -> Bool {
        let value = variables[name] ?? ""
        if name.hasSuffix("_PORT"), ["tcp://", "udp://", "sctp://"].contains(where: value.hasPrefix) { return true }
        if name.hasSuffix("_SERVICE_HOST") || name.hasSuffix("_SERVICE_PORT") { return true }
        if name.contains("_SERVICE_PORT_") { return true }
        return name.contains(#/_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/#)
    }
}
