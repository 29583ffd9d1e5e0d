package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// kubectlCompletion is the program that kubectl (1.26 and later) runs to complete
// a plugin's arguments; its name must be kubectl_complete-oidc_device.
const kubectlCompletion = `#!/bin/sh
# Completes "kubectl oidc-device": kubectl runs the program of this name.
exec kubectl-oidc_device __complete "$@"
`

func newCompletion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell", "kubectl"}
	return &cobra.Command{
		Use:   "completion (bash | zsh | fish | powershell | kubectl)",
		Short: "Print what makes a shell complete this program's commands, flags and values",
		Example: `  # as kubectl oidc-device <TAB>, where kubectl's own completion is loaded: a
  # program of this very name, on the PATH
  kubectl oidc-device completion kubectl > ~/.local/bin/kubectl_complete-oidc_device
  chmod +x ~/.local/bin/kubectl_complete-oidc_device

  # as kubectl-oidc_device <TAB>, in this bash; the others are like it
  source <(kubectl-oidc_device completion bash)`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{message: "completion takes one argument: bash, zsh, fish, powershell or kubectl"}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			root, out := c.Root(), c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			case "kubectl":
				_, err := io.WriteString(out, kubectlCompletion)
				return err
			}
			return &usageError{message: fmt.Sprintf("%q is none of: bash, zsh, fish, powershell, kubectl", args[0])}
		},
	}
}

// completeValues tells the values of flags that have few, and the names in the
// kubeconfigs.
func completeValues(c *cobra.Command) {
	fixed := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	complete := map[string]cobra.CompletionFunc{
		"output":          fixed(outputs(c.Name())...),
		"context":         fromKubeconfig(func(r kubeconfigRef) []string { return r.contexts }),
		"user":            fromKubeconfig(func(r kubeconfigRef) []string { return []string{r.user} }),
		"oidc-issuer-url": fromKubeconfig(func(r kubeconfigRef) []string { return []string{r.options.issuer} }),
		"oidc-client-id":  fromKubeconfig(func(r kubeconfigRef) []string { return []string{r.options.clientID} }),
	}
	if c.Name() == "setup" { // which is for what does not run this program yet
		complete["context"] = anyName(func(k *kubeconfigs) []string { return k.order })
		complete["from-user"] = anyName(func(k *kubeconfigs) []string { return k.kubelogin })
	}
	c.Flags().VisitAll(func(flag *pflag.Flag) {
		f := complete[flag.Name]
		if values := choices(flag.Name); values != nil {
			f = fixed(values...)
		}
		if f != nil {
			_ = c.RegisterFlagCompletionFunc(flag.Name, f) // fails for a flag that has one
		}
	})
}

func anyName(names func(*kubeconfigs) []string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		all, _ := readKubeconfigs(kubeconfigFiles()) // what cannot be read completes nothing
		return names(all), cobra.ShellCompDirectiveNoFileComp
	}
}

func fromKubeconfig(names func(kubeconfigRef) []string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		refs, _ := kubeconfigRefs() // what cannot be read completes nothing
		var found []cobra.Completion
		for _, r := range refs {
			found = append(found, names(r)...)
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}
