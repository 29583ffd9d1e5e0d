package execcred

import (
	"reflect"
	"testing"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret/secrettest"
)

func TestNoTypePrintsASecret(t *testing.T) {
	secrettest.Types(t, []reflect.Type{reflect.TypeFor[Credential]()}, nil, nil)
}
