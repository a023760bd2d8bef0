-- So that `vim.lsp.enable('c2l')` works without the plugin's own renderer (Neovim 0.11 and newer).
return require('c2l.launch').spec()
