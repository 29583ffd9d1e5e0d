// The command kubectl-oidc_device is a kubectl and CI credential plugin for
// the OAuth 2.0 device authorization grant. See README.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/oidc-device/kubectl-oidc_device/internal/cli"
)

func main() { os.Exit(cli.Main(interruptible, os.Args[1:], os.Stdout, os.Stderr)) }

// interruptible gives a context that the first signal ends, and the second
// together with the program.
func interruptible(parent context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		// What was ignored from the start stays so: nohup, and a shell's
		// background jobs.
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	// A reader of stderr that went away must not end a renewal half-way.
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		sig := <-signals
		signal.Stop(signals)
		cancel(&cli.SignalError{Signal: sig})
	}()
	return ctx
}
