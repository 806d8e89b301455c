package wire

// The helper's exit codes. They stay below 100: 100 to 105 are the runner's own, for a job's result.
const (
	ExitOK                = 0
	ExitError             = 1 // unexpected; also what cmd.exe gives when the helper is not there
	ExitBadOrder          = 2
	ExitNoOrder           = 3
	ExitNotReady          = 4 // still being set up: ask again
	ExitPreflight         = 10
	ExitNoRunner          = 11
	ExitNoSpace           = 12
	ExitOtherOrder        = 13
	ExitNoNetwork         = 20
	ExitClock             = 21
	ExitTokenRejected     = 30
	ExitNameOrGroup       = 31
	ExitConfigure         = 32
	ExitJITRejected       = 33
	ExitNotListening      = 40
	ExitSessionConflict   = 41
	ExitVersionDeprecated = 42
	ExitRunnerEnded       = 43
	ExitDeadline          = 50
	ExitNoLogon           = 60
)

// Meaning says in a few words what an exit code of the helper stands for; "" for one that it does not use.
func Meaning(code int) string {
	switch code {
	case ExitOK:
		return "done"
	case ExitError:
		return "unexpected error, or no helper there"
	case ExitBadOrder:
		return "the helper does not understand its command or order"
	case ExitNoOrder:
		return "no order came on standard input, or too long a one"
	case ExitNotReady:
		return "the guest is still being set up"
	case ExitPreflight:
		return "not elevated, or not the right operating system"
	case ExitNoRunner:
		return "the runner's files are missing or its version is unreadable"
	case ExitNoSpace:
		return "disk space, work folder or its access rights"
	case ExitOtherOrder:
		return "it works on another order"
	case ExitNoNetwork:
		return "no DNS or network to GitHub in time"
	case ExitClock:
		return "the clock is wrong and cannot be set"
	case ExitTokenRejected:
		return "GitHub rejected the registration token"
	case ExitNameOrGroup:
		return "the runner's name exists and may not be replaced, or its group is missing"
	case ExitConfigure:
		return "configuring the runner failed"
	case ExitJITRejected:
		return "the JIT configuration was rejected"
	case ExitNotListening:
		return "the runner did not listen for jobs in time"
	case ExitSessionConflict:
		return "GitHub has another session of this runner"
	case ExitVersionDeprecated:
		return "GitHub refuses this version of the runner"
	case ExitRunnerEnded:
		return "the runner ended before it listened"
	case ExitDeadline:
		return "the deadline came and the runner was ended"
	case ExitNoLogon:
		return "the runner's user cannot log on"
	}
	return ""
}
