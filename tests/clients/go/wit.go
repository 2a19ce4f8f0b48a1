package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/spiffe/go-spiffe/v2/exp/svid/witsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// witWatcher reports every WIT-SVID and closes done after enough rotations, or fails on the first bad one.
type witWatcher struct {
	client *workloadapi.Client
	wanted int
	seen   map[string]bool
	result chan error
}

func (w *witWatcher) OnWITSVIDsUpdate(svids []*witsvid.SVID) {
	if len(svids) == 0 {
		w.finish(errors.New("an update without a WIT-SVID"))
		return
	}
	svid := svids[0]
	if err := w.check(svid); err != nil {
		w.finish(err)
		return
	}
	sum := sha256.Sum256([]byte(svid.Marshal()))
	serial := hex.EncodeToString(sum[:8])
	emit(map[string]any{
		"event": "svid", "spiffe_id": svid.ID.String(), "serial": serial, "not_after": svid.Expiry.Unix(),
	})
	w.seen[serial] = true
	if len(w.seen) >= w.wanted {
		w.finish(nil)
	}
}

// check verifies the token by the library with the bundles of the Workload API, and that the key signs what the token's key verifies.
func (w *witWatcher) check(svid *witsvid.SVID) error {
	bundles, err := w.client.FetchWITBundles(context.Background())
	if err != nil {
		return err
	}
	verified, err := witsvid.ParseAndValidate(svid.Marshal(), bundles)
	if err != nil {
		return err
	}
	if verified.ID != svid.ID {
		return fmt.Errorf("the token is for %s, the SVID says %s", verified.ID, svid.ID)
	}
	public, isEC := verified.PublicKey.(*ecdsa.PublicKey)
	private, signs := svid.PrivateKey.(crypto.Signer)
	if !isEC || !signs {
		return fmt.Errorf("keys of kind %T and %T", verified.PublicKey, svid.PrivateKey)
	}
	digest := sha256.Sum256([]byte("proof"))
	signature, err := private.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(public, digest[:], signature) {
		return errors.New("the private key is not the one that the token is bound to")
	}
	return nil
}

func (w *witWatcher) OnWITSVIDsWatchError(err error) {
	fmt.Fprintln(os.Stderr, "watch:", err)
}

func (w *witWatcher) finish(err error) {
	select {
	case w.result <- err:
	default:
	}
}

// wit fetches WIT-SVIDs and follows their rotations.
func wit(ctx context.Context, o options) error {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(o.socket))
	if err != nil {
		return err
	}
	defer client.Close()
	w := &witWatcher{client: client, wanted: o.rotations + 1, seen: map[string]bool{}, result: make(chan error, 1)}
	ended := make(chan error, 1)
	go func() { ended <- client.WatchWITSVIDs(ctx, w, "") }()
	select {
	case err = <-w.result:
		return err
	case err = <-ended:
		return fmt.Errorf("the watch ended: %w", err)
	}
}
