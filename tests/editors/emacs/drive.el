;;; drive.el --- Emacs' lsp-mode, a client that is not ours, against the server  -*- lexical-binding: t; -*-
;; Run: emacs -Q --batch -l drive.el.  Environment:
;;   C2L_SERVER  JSON list, the command that starts the server
;;   C2L_WORK    a folder of this run's own
;;   C2L_PACKAGES  where lsp-mode and what it needs are unpacked
;;   C2L_SCENARIOS  names of the functions `drive/NAME', to be run in one session, separated by blanks
;;   C2L_TEXT    what the file holds; the cursor is at its end
;;   C2L_WANT    the first suggestion that must come; empty: any
;;   C2L_PROMPTS JSON list of texts; the suggestion behind one of them changes with what is learned
;;   C2L_FAULT   not empty: each scenario's fault is planted, so the run must fail
;;; Code:
(setq debug-on-error nil)
(dolist (folder (directory-files (getenv "C2L_PACKAGES") t "^[a-z]"))
  (add-to-list 'load-path folder))
(require 'json)
(setq lsp-auto-guess-root t
      lsp-warn-no-matched-clients nil
      lsp-restart 'ignore
      lsp-session-file (expand-file-name "session" (getenv "C2L_WORK"))
      lsp-keep-workspace-alive nil
      lsp-enable-suggest-server-download nil
      lsp-enable-dap-auto-configure nil
      lsp-modeline-code-actions-enable nil
      lsp-headerline-breadcrumb-enable nil
      lsp-enable-file-watchers nil
      lsp-lens-enable nil
      lsp-modeline-workspace-status-enable nil
      lsp-modeline-diagnostics-enable nil
      lsp-enable-snippet nil
      lsp-response-timeout 120
      lsp-inline-completion-enable t)
(require 'lsp-mode)
(require 'lsp-inline-completion)
(require 'python)
(defvar drive-trigger "automatic" "The setting c2l.completion.trigger.")
(lsp-register-custom-settings '(("c2l.completion.trigger" drive-trigger)
                                ("c2l.completion.maxLatencyMs" 20000)
                                ("c2l.completion.maxLatencyInvokedMs" 30000)))
(lsp-register-client
 (make-lsp-client :new-connection (lsp-stdio-connection (append (json-read-from-string (getenv "C2L_SERVER")) nil))
                  :activation-fn (lsp-activate-on "python")
                  :priority 10
                  :multi-root t
                  :notification-handlers (ht ("c2l/didChangeStatus" #'ignore) ("c2l/adapter/didChange" #'ignore))
                  :initialized-fn (lambda (workspace)
                                    (with-lsp-workspace workspace
                                      (lsp--set-configuration (lsp-configuration-section "c2l"))))
                  :server-id 'c2l))
(setq lsp-enabled-clients '(c2l))

(defvar drive-fault (not (string= (or (getenv "C2L_FAULT") "") "")))
(defvar drive-text (getenv "C2L_TEXT"))
(defvar drive-patience (if drive-fault 10 (string-to-number (or (getenv "C2L_WAIT") "180"))) "Seconds; with a fault, what is waited for does not come.")

(defun drive-wait (what predicate &optional seconds)
  "Wait for PREDICATE for SECONDS at most, else fail saying WHAT."
  (let ((end (+ (float-time) (or seconds drive-patience))) got)
    (while (and (not (setq got (funcall predicate))) (< (float-time) end))
      (accept-process-output nil 0.05))
    (or got (error "Waited in vain for %s" what))))

(defun drive-equal (what got want)
  "Fail saying WHAT unless GOT is WANT."
  (unless (equal got want)
    (error "%s: got %S, want %S" what got want)))

(defun drive-buffer ()
  "The whole text."
  (buffer-substring-no-properties (point-min) (point-max)))

(defun drive-reset (&optional text)
  "The file's TEXT again (as it was first), the cursor at its end, nothing shown."
  (when (lsp-inline-completion--active-p) (lsp-inline-completion-cancel))
  (erase-buffer)
  (insert (or text drive-text)))

(defun drive-ask (kind)
  "Texts of the suggestions here; KIND 1 is invoked, 2 automatic."
  (let ((asked (append (lsp--text-document-position-params) (list :context (list :triggerKind kind)))))
    (mapcar (lambda (item) (lsp-get item :insertText))
            (lsp-get (lsp-request "textDocument/inlineCompletion" asked) :items))))

(defun drive-show ()
  "Show suggestions, and the text of the one shown."
  (drive-wait "the overlay" (lambda ()
                              (or (bound-and-true-p lsp-inline-completion--overlay)
                                  (progn (lsp-inline-completion-display) nil))))
  (drive-shown))

(defun drive-shown ()
  "The text of the suggestion that is shown."
  (lsp-get (elt lsp-inline-completion--items lsp-inline-completion--current) :insertText))

(defun drive-status ()
  "What the server says of itself and of this file."
  (lsp-request "c2l/status" (list :textDocument (list :uri (lsp--buffer-uri)))))

(defun drive-generation (&optional folder)
  "Generation of the adapter of FOLDER, or of the one worked in; nil while the server is busy."
  (let* ((status (drive-status))
         (found (if folder
                    (seq-find (lambda (one) (string-suffix-p folder (lsp-get one :folder))) (lsp-get status :folders))
                  (and (string= (lsp-get status :state) "ready") (lsp-get status :adapter)))))
    (and found (> (lsp-get found :generation) 0) (lsp-get found :generation))))

(defun drive-begin ()
  "A file in a folder, and a server that is ready for it."
  (let* ((work (expand-file-name "one" (getenv "C2L_WORK"))) (path (expand-file-name "demo.py" work)))
    (make-directory (expand-file-name ".git" work) t)
    (let ((coding-system-for-write 'utf-8))
      (with-temp-file path (insert drive-text)))
    (find-file path)
    (python-mode)
    (lsp-workspace-folders-add work)
    (lsp)
    (drive-wait "the first server" #'drive-ready 180)
    (unless (lsp-feature? "textDocument/inlineCompletion")
      (error "The server does not announce inline completion"))
    (set-window-buffer (selected-window) (current-buffer))
    (drive-reset)
    (drive-wait "an adapter" #'drive-generation 180)
    ;; A model may be late; the first suggestion is waited for.
    (let ((given (drive-wait "a suggestion" (lambda () (car (drive-ask 1))) 180)))
      (unless (string= (or (getenv "C2L_WANT") "") "")
        (drive-equal "suggestion" given (getenv "C2L_WANT"))))))

(defun drive-ready ()
  "Whether a server is attached and initialized."
  (and (lsp-workspaces) (eq 'initialized (lsp--workspace-status (car (lsp-workspaces))))))

(defun drive-spoil ()
  "Plant the fault of a wrong text."
  (when drive-fault
    (advice-add 'lsp-inline-completion--insert-sugestion :filter-args
                (lambda (arguments) (cons (concat "x" (car arguments)) (cdr arguments))))))

(defun drive/accept ()
  "Type, see, accept, save: the file holds what was shown."
  (drive-reset)
  (let ((given (drive-show)) (path buffer-file-name))
    (drive-spoil)
    (lsp-inline-completion-accept)
    (drive-equal "buffer" (drive-buffer) (concat drive-text given))
    (let ((require-final-newline nil)) (save-buffer))
    (drive-equal "file" (with-temp-buffer (insert-file-contents path) (buffer-string))
                 (concat drive-text given))))

(defun drive/cycle ()
  "The next candidate is another one, and it is what is accepted."
  (drive-reset)
  (when drive-fault (advice-add 'lsp-inline-completion-next :override #'ignore))
  (let ((first (drive-show)) second)
    (lsp-inline-completion-next)
    (setq second (drive-shown))
    (when (equal first second) (error "There is no second candidate"))
    (lsp-inline-completion-accept)
    (drive-equal "the chosen one" (drive-buffer) (concat drive-text second))))

(defun drive/typing-through ()
  "What is shown is typed by hand for a while, then the rest is accepted."
  (drive-reset)
  (let* ((given (drive-show)) (along (substring given 0 2)))
    (lsp-inline-completion-cancel)
    (insert along)
    (drive-spoil)
    (drive-equal "the rest" (drive-wait "the rest" (lambda () (car (drive-ask 2)))) (substring given 2))
    (lsp-inline-completion-display)
    (drive-wait "the overlay" (lambda () (bound-and-true-p lsp-inline-completion--overlay)))
    (let ((rest (drive-shown)))
      (lsp-inline-completion-accept)
      (drive-equal "typed along, then accepted" (drive-buffer) (concat drive-text along rest)))))

(defun drive/toggle ()
  "Off shows nothing, and the status says why."
  (drive-reset)
  (unless drive-fault (lsp-request "workspace/executeCommand" '(:command "c2l.toggle" :arguments [(:enabled :json-false)])))
  (drive-equal "nothing when off" (drive-ask 1) nil)
  (drive-equal "the reason" (lsp-get (drive-status) :disabledReason) "off")
  (lsp-request "workspace/executeCommand" '(:command "c2l.toggle" :arguments [(:enabled t)]))
  (drive-wait "a suggestion again" (lambda () (drive-ask 1))))

(defun drive-answers ()
  "What is suggested behind each of the prompts."
  (mapcar (lambda (prompt) (drive-reset prompt) (car (drive-ask 1)))
          (append (json-read-from-string (getenv "C2L_PROMPTS")) nil)))

(defun drive/learns ()
  "A file changes on disk: the status shows a new generation, and a completion changes."
  (let ((now (drive-wait "an adapter" #'drive-generation)) (before (drive-answers)) (number 0))
    (drive-reset)
    (let ((path (expand-file-name (if drive-fault "../zoo.py" "zoo.py"))))
      (with-temp-file path
        (insert "import zebra\n\n\n")
        (dotimes (number 60)
          (insert (format "from zebra import quokka_%d\n\n\ndef quokka_handler_%d(wombat):\n" number number)
                  "    result = wombat_service(wombat)\n    return zebra.quokka_handler(result)\n\n\n"))))
    (drive-wait "a new generation" (lambda () (> (or (drive-generation) 0) now)))
    ;; The prompts stand in a buffer, which is learned too: not every new generation has read the file.
    (drive-wait "a completion that has changed" (lambda () (not (equal (drive-answers) before))) 60)))

(defun drive/settings ()
  "A setting applies at once."
  (drive-reset)
  (setq drive-trigger "manual")
  (unless drive-fault (lsp--set-configuration (lsp-configuration-section "c2l")))
  (drive-wait "the reason" (lambda () (equal (lsp-get (drive-status) :disabledReason) "manual")))
  (drive-equal "manual: nothing by itself" (drive-ask 2) nil)
  (unless (drive-ask 1) (error "Nothing on request"))
  (setq drive-trigger "automatic")
  (lsp--set-configuration (lsp-configuration-section "c2l"))
  (drive-wait "no reason" (lambda () (not (lsp-get (drive-status) :disabledReason)))))

(defun drive/killed ()
  "The server is killed: Emacs sees it end, a restart brings it back, and it works again."
  (drive-reset)
  (let* ((workspace (car (lsp-workspaces))) (process (lsp--workspace-cmd-proc workspace)))
    (signal-process process 'SIGKILL)
    (drive-wait "its end" (lambda () (not (process-live-p process))))
    (drive-wait "Emacs to see that" (lambda () (not (drive-ready))))
    (unless drive-fault (lsp))
    (drive-wait "the server" #'drive-ready)
    (drive-wait "an adapter" #'drive-generation)
    (drive-wait "a suggestion" (lambda () (drive-ask 1)))))

(defun drive/folders ()
  "Two folders, one server, an adapter for each."
  (let* ((work (expand-file-name "two" (getenv "C2L_WORK"))) (path (expand-file-name "b.py" work)))
    (make-directory (expand-file-name ".git" work) t)
    (with-temp-file path (insert drive-text))
    (unless drive-fault (lsp-workspace-folders-add work))
    (find-file path)
    (python-mode)
    (unless drive-fault (lsp))
    (drive-wait "the server" #'drive-ready)
    (drive-wait "an adapter for each" (lambda () (and (drive-generation "/one") (drive-generation "/two"))))
    (set-window-buffer (selected-window) (current-buffer))
    (goto-char (point-max))
    (unless (drive-ask 1) (error "Nothing in the second folder"))))

(condition-case problem
    (progn
      (drive-begin)
      (dolist (name (split-string (getenv "C2L_SCENARIOS")))
        (funcall (intern (concat "drive/" name)))
        (message "HELD %s" name))
      (message "OK")
      (kill-emacs 0))
  (error (message "FAILED %s" (error-message-string problem)) (kill-emacs 1)))
;;; drive.el ends here
