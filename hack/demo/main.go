// The command demo shows the whole of kubectl oidc-device on this machine
// alone, with an OpenID provider of its own on a loopback address:
//
//	go run ./hack/demo                    # you approve in a browser
//	go run ./hack/demo -approve           # it clicks for you
//	go run ./hack/demo -approve -cluster  # with a real kube-apiserver and kubectl
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/execcred"
	"github.com/oidc-device/kubectl-oidc_device/hack/kube"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

func main() {
	approve := flag.Bool("approve", false, "approve the login without a person")
	cluster := flag.Bool("cluster", false, "run a real kube-apiserver and kubectl too (built at first, which takes minutes)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *approve, *cluster)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, approve, cluster bool) error {
	dir, err := os.MkdirTemp("", "oidc-device-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	// A browser takes http from a loopback address without a warning;
	// kube-apiserver takes https alone.
	provider, err := issuer.Start(issuer.Options{TLS: cluster})
	if err != nil {
		return err
	}
	defer provider.Close()
	provider.Set(func(b *issuer.Behaviour) {
		b.User = issuer.User{Subject: "1234", Username: "jane", Email: "jane@example.com", Groups: []string{"developers"}}
		b.Interval = 1
	})
	say("1. An OpenID provider runs at %s", provider.URL())

	// The audit log of the demo is no part of the user's.
	if err := os.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state")); err != nil {
		return err
	}
	plugin := filepath.Join(dir, "kubectl-oidc_device")
	if runtime.GOOS == "windows" {
		plugin += ".exe"
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", plugin, "github.com/oidc-device/kubectl-oidc_device")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the plugin: %w", err)
	}
	args := []string{"get-token", "--oidc-issuer-url=" + provider.URL(), "--oidc-client-id=kubectl", "--token-cache-dir=" + filepath.Join(dir, "cache")}
	if cluster {
		ca := filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(ca, provider.CAPEM(), 0o600); err != nil {
			return err
		}
		args = append(args, "--certificate-authority="+ca)
	}
	clicking := make(chan error, 1)
	if approve {
		go func() { clicking <- click(ctx, provider) }()
	}

	if cluster {
		err = withCluster(ctx, provider, plugin, args)
	} else {
		err = alone(ctx, plugin, args)
	}
	if err != nil {
		return err
	}
	if approve {
		if err := <-clicking; err != nil {
			return err
		}
	}
	fmt.Printf(`
To use it with your own provider, put this into your kubeconfig (README.md, "Use it with kubectl"):

    users:
    - name: oidc
      user:
        exec:
          apiVersion: client.authentication.k8s.io/v1
          command: kubectl-oidc_device
          args: [get-token, --oidc-issuer-url=https://YOUR-ISSUER, --oidc-client-id=YOUR-CLIENT]
          interactiveMode: IfAvailable
`)
	return nil
}

// alone plays kubectl: it runs the plugin as client-go does.
func alone(ctx context.Context, plugin string, args []string) error {
	say("2. kubectl would now run: kubectl-oidc_device %s …", strings.Join(args[:3], " "))
	first, took, err := execCredential(ctx, plugin, args, execcred.EnvVar+`={"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":true}}`)
	if err != nil {
		return err
	}
	say("3. It answers kubectl with this ExecCredential (token shortened):\n\n    %s", first)
	// By hand: to the same client it would be the answer to a 401.
	_, again, err := execCredential(ctx, plugin, args)
	if err != nil {
		return err
	}
	say("4. Asked again, it answers from its cache, and asks nobody: %s instead of %s.", again.Round(time.Millisecond), took.Round(time.Millisecond))

	logout := exec.CommandContext(ctx, plugin, append([]string{"logout"}, args[1:]...)...)
	logout.Stdout, logout.Stderr = os.Stdout, os.Stderr
	say("5. kubectl oidc-device logout, with the same flags, ends the session:\n")
	return logout.Run()
}

func execCredential(ctx context.Context, plugin string, args []string, env ...string) (string, time.Duration, error) {
	cmd := exec.CommandContext(ctx, plugin, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return "", 0, fmt.Errorf("the plugin: %w", err)
	}
	took := time.Since(start)
	var credential map[string]any
	if err := json.Unmarshal(out.Bytes(), &credential); err != nil {
		return "", 0, err
	}
	status, ok := credential["status"].(map[string]any)
	if !ok {
		return "", 0, errors.New("the plugin's answer has no status")
	}
	token, _ := status["token"].(string)
	status["token"] = fmt.Sprintf("%.10s… (%d characters)", token, len(token))
	shown, err := json.MarshalIndent(credential, "    ", "  ")
	return string(shown), took, err
}

// withCluster lets the real kubectl run the plugin against a real API server.
func withCluster(ctx context.Context, provider *issuer.Issuer, plugin string, args []string) error {
	say("2. etcd and kube-apiserver, which trusts that provider, are made and started.")
	bins, err := kube.Binaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	cluster, err := kube.Start(ctx, kube.Config{
		Bins: bins,
		Authentication: kube.AuthenticationConfiguration(kube.Issuer{
			URL: provider.URL(), Audiences: []string{"kubectl"}, CA: provider.CAPEM(), UsernameClaim: "preferred_username",
		}),
	})
	if err != nil {
		return err
	}
	defer cluster.Stop()
	kubeconfig := filepath.Join(filepath.Dir(plugin), "kubeconfig")
	// JSON is YAML.
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "demo",
		"clusters": []any{map[string]any{"name": "demo", "cluster": map[string]any{"server": cluster.URL, "certificate-authority": cluster.CAFile}}},
		"contexts": []any{map[string]any{"name": "demo", "context": map[string]any{"cluster": "demo", "user": "oidc"}}},
		"users": []any{map[string]any{"name": "oidc", "user": map[string]any{"exec": map[string]any{
			"apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "args": args, "interactiveMode": "IfAvailable",
		}}}},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(kubeconfig, config, 0o600); err != nil {
		return err
	}
	for n, why := range []string{"which runs the plugin, and that asks you", "again: the plugin answers from its cache"} {
		say("%d. kubectl auth whoami, %s:\n", n+3, why)
		whoami := exec.CommandContext(ctx, bins.Kubectl, "--kubeconfig="+kubeconfig, "auth", "whoami")
		whoami.Stdin, whoami.Stdout, whoami.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := whoami.Run(); err != nil {
			return fmt.Errorf("kubectl auth whoami: %w", err)
		}
	}
	return nil
}

// click does what a person does on the provider's page.
func click(ctx context.Context, provider *issuer.Issuer) error {
	for len(provider.PendingCodes()) == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	time.Sleep(time.Second) // for the prompt to be read
	codes := provider.PendingCodes()
	code := codes[len(codes)-1]
	say("(-approve: approving %s)", code)
	return provider.Approve(code)
}

func say(format string, args ...any) { fmt.Printf("\n"+format+"\n", args...) }
